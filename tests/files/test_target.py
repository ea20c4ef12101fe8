"""Targets: the manual's table to the letter, and refusals that name the rule, the value found, and who allows it."""

import dataclasses
import json
from pathlib import Path

import pytest

from amct_lite.errors import ConfigError, FileError
from amct_lite.files.target import BUILT_IN_TARGETS, Target, load_target, targets_that_allow
from amct_lite.types import Layer, LayerKind, Technique


def conv(kernel=(4, 4), dilation=1, group=1) -> Layer:
    shape = (8, 4 // group, *kernel)
    rank = len(kernel)
    return Layer(
        *("c", "Conv", LayerKind.CONVOLUTION, "x", 0, 1, "y", "w", 1, shape),
        kernel_shape=kernel,
        dilations=(dilation,) * rank,
        group=group,
    )


def inner_product(transpose=False, axis: int | None = 1) -> Layer:
    layer = Layer("f", "Gemm", LayerKind.INNER_PRODUCT, "x", 0, 1, "y", "w", 1, (4, 8), 1)
    return dataclasses.replace(layer, transpose=transpose, axis=axis)


def deconv(kernel=(4, 4), dilation=1, group=1) -> Layer:
    return dataclasses.replace(
        conv(kernel, dilation, group), op_type="ConvTranspose", kind=LayerKind.DECONVOLUTION, output_channel_axis=1
    )


POOL = Layer(
    "p", "AveragePool", LayerKind.AVERAGE_POOL, "x", 0, 1, "y", kernel_shape=(2, 2), dilations=(1, 1)
)  # no weight


@pytest.mark.parametrize("name", BUILT_IN_TARGETS)
def test_a_built_in_target_loads_under_its_own_name(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.description
    assert target.deploy_form == ("qdq" if name == "onnxruntime" else "ascend")


@pytest.mark.parametrize("name", ["ascend", "ascend-rank4"])
@pytest.mark.parametrize(
    ("layer", "refusal"),
    [
        (conv(dilation=2), "dilation must be 1, found [2, 2]"),
        (conv(group=2), "group must be 1, found 2"),
        (inner_product(transpose=True), "transpose must be false, found true"),
        (inner_product(axis=2), "axis must be 1, found 2"),
        (inner_product(axis=None), "axis must be 1, found unknown"),
        (deconv(), "type must be one of Convolution, InnerProduct, found ConvTranspose (Deconvolution)"),
        (POOL, "type must be one of Convolution, InnerProduct, found AveragePool (AveragePool)"),
        (conv(), None),
        (inner_product(), None),
    ],
)
def test_nuq_on_ascend_is_the_manuals_table(name: str, layer: Layer, refusal: str | None) -> None:
    assert load_target(name).refusal(layer, Technique.NUQ) == refusal


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (4, 1), (1, 4), (4,), (4, 4, 4)])
def test_ascend_takes_a_4_by_4_filter_only(kernel: tuple[int, ...]) -> None:
    found = load_target("ascend").refusal(conv(kernel), Technique.NUQ)
    assert found == f"kernel_shape must be [4, 4], found {list(kernel)}"


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (7, 1)])
def test_ascend_rank4_takes_any_2d_filter(kernel: tuple[int, ...]) -> None:
    assert load_target("ascend-rank4").refusal(conv(kernel), Technique.NUQ) is None


@pytest.mark.parametrize("kernel", [(4,), (4, 4, 4)])
def test_ascend_rank4_refuses_filters_of_another_rank(kernel: tuple[int, ...]) -> None:
    found = load_target("ascend-rank4").refusal(conv(kernel), Technique.NUQ)
    assert found == f"the number of spatial axes of the kernel must be 2, found {len(kernel)}"


@pytest.mark.parametrize(
    "layer", [conv((3,), 2, 4), conv((4, 4, 4)), deconv(group=2), inner_product(True, 3), inner_product(axis=None)]
)
def test_onnxruntime_restricts_no_layer_with_weights(layer: Layer) -> None:
    for technique in Technique:
        assert load_target("onnxruntime").refusal(layer, technique) is None


@pytest.mark.parametrize("name", BUILT_IN_TARGETS)
@pytest.mark.parametrize("technique", Technique)
def test_a_blocked_layer_is_refused_everywhere_with_its_own_reason(name: str, technique: Technique) -> None:
    layer = dataclasses.replace(conv(), blocked="Its weight is not constant.")
    assert load_target(name).refusal(layer, technique) == "Its weight is not constant."


def test_the_targets_that_allow_a_layer_are_named() -> None:
    assert targets_that_allow(conv(), Technique.NUQ) == list(BUILT_IN_TARGETS)
    assert targets_that_allow(conv((3, 3)), Technique.NUQ) == ["ascend-rank4", "onnxruntime"]
    assert targets_that_allow(conv(group=4), Technique.NUQ) == ["onnxruntime"]
    assert targets_that_allow(POOL, Technique.NUQ) == []


def test_scales_per_channel_are_amcts_and_never_for_a_grouped_transposed_convolution() -> None:
    ascend, onnxruntime = load_target("ascend"), load_target("onnxruntime")
    assert ascend.allows_channel_wise(conv(group=4))
    assert ascend.allows_channel_wise(deconv())
    assert not ascend.allows_channel_wise(inner_product())
    assert not ascend.allows_channel_wise(POOL)
    assert onnxruntime.allows_channel_wise(inner_product())
    assert not onnxruntime.allows_channel_wise(deconv(group=2))


MINE = {
    "name": "mine",
    "deploy_form": "qdq",
    "rules": {"uniform": {"Convolution": {}}, "nuq": {"Convolution": {"kernel_shape": [3, 3], "group": 1}}},
}


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_a_users_target_lies_beside_the_config(tmp_path: Path) -> None:
    write(tmp_path / "mine.json", MINE)
    target = load_target("mine.json", tmp_path)
    assert target.refusal(conv((3, 3)), Technique.NUQ) is None
    assert target.refusal(conv((4, 4)), Technique.NUQ) == "kernel_shape must be [3, 3], found [4, 4]"
    assert target.refusal(inner_product(), Technique.UNIFORM) == (
        "type must be one of Convolution, found Gemm (InnerProduct)"
    )
    assert load_target(str(tmp_path / "mine.json")) == target


def test_a_technique_without_rules_is_allowed_nowhere() -> None:
    target = Target.model_validate({**MINE, "rules": {}})
    assert target.refusal(conv(), Technique.NUQ) == "type must be one of no layer, found Conv (Convolution)"


@pytest.mark.parametrize("name", ["ascnd", "mine.json", "a\0b", "x" * 5000, "", "."])
def test_an_unknown_target_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="There is no target") as caught:
        load_target(name, tmp_path)
    assert repr(name) in str(caught.value)
    assert "ascend, ascend-rank4, onnxruntime" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deploy_form": "om"}, "$.deploy_form: Input should be 'ascend' or 'qdq'"),
        ({"rule": {}}, "$.rule: Extra inputs are not permitted"),
        ({"rules": {"nuqq": {}}}, "$.rules.nuqq: Input should be 'uniform', 'nuq' or 'codebook'"),
        ({"rules": {"nuq": {"Conv": {}}}}, "$.rules.nuq.Conv: Input should be 'Convolution'"),
        ({"rules": {"nuq": {"Convolution": {"kernel": [3]}}}}, "$.rules.nuq.Convolution.kernel: Extra inputs"),
        ({"rules": {"nuq": {"Convolution": {"group": "one"}}}}, "$.rules.nuq.Convolution.group: Input should be"),
        ({"channel_wise": ["Gemm"]}, "$.channel_wise[0]: Input should be"),
        ({"name": None}, "$.name: Input should be a valid string"),
    ],
)
def test_a_broken_target_file_is_refused_with_file_and_place(tmp_path: Path, change, message: str) -> None:
    path = write(tmp_path / "mine.json", {**MINE, **change})
    with pytest.raises(ConfigError) as caught:
        load_target("mine.json", tmp_path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.remedy


def test_a_target_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(ConfigError, match=r"target file .* line 1, column 2"):
        load_target("mine.json", tmp_path)
    (tmp_path / "mine.json").write_bytes(b"\xff")
    with pytest.raises(FileError, match="UTF-8"):
        load_target("mine.json", tmp_path)
