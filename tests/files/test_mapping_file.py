"""The compiler's file: who is flagged, under both spellings; damaged and other files are told apart."""

import json
from pathlib import Path

import pytest

from amct_lite.errors import ConfigError, FileError
from amct_lite.files.mapping_file import FlaggedOperator, read_mapping_file

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "amct-samples" / "onnx-resnet101/resnet-101_quantized.json"


def operator(name: str, key: str | None = None, flag: bool = True, layers: list[str] | None = None) -> dict:
    attributes = [{"key": "_tbe_kernel_buffer", "value": None}]
    if key is not None:
        attributes.append({"key": key, "value": {"b": flag}})
    if layers is not None:
        names = {"list": {"s": layers, "val_type": "VT_LIST_STRING"}}
        attributes.append({"key": "_datadump_original_op_names", "value": names})
    return {"name": name, "type": "Conv2D", "attr": attributes}


@pytest.fixture
def read(tmp_path: Path):
    def run(document: object) -> tuple[FlaggedOperator, ...]:
        path = tmp_path / "net.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_mapping_file(path)

    return run


def network(*operators: object) -> dict:
    return {"attr": [], "graph": [{"name": "g", "op": list(operators)}], "name": "net", "version": 2}


def test_the_real_file_of_resnet_101_flags_nine_convolutions_and_its_inner_product() -> None:
    if not SAMPLE.is_file():
        pytest.skip(f"{SAMPLE} is not there")
    flagged = read_mapping_file(SAMPLE)
    assert len(flagged) == 10
    assert [name for one in flagged for name in one.layers if name.startswith(("Conv_", "Gemm_"))] == [
        *("Conv_313", "Conv_316", "Conv_318", "Conv_322", "Conv_325", "Conv_328", "Conv_332", "Conv_335", "Conv_338"),
        "Gemm_353",
    ]


@pytest.mark.parametrize("key", ["_fe_weight_compress", "fe_weight_compress"])
def test_both_spellings_of_the_flag_are_known_and_false_is_no_flag(read, key: str) -> None:
    document = network(operator("a", key, layers=["a"]), operator("b", key, flag=False), operator("c"))
    assert read(document) == (FlaggedOperator("a", ("a",)),)


def test_quantizers_fused_into_an_operator_are_no_layers_of_it(read) -> None:
    caffe = operator("x", "_fe_weight_compress", layers=["a", "a_dequant_layer", "b_0_quant_layer"])
    onnx = operator("y", "_fe_weight_compress", layers=["n", "n.dequant", "m.quant", "k.anti_quant", "Relu_2"])
    assert [one.layers for one in read(network(caffe, onnx))] == [("a",), ("n", "Relu_2")]


def test_an_operator_that_lists_no_layers_stands_for_the_layer_of_its_name(read) -> None:
    assert read(network(operator("Gemm_353", "_fe_weight_compress"))) == (FlaggedOperator("Gemm_353", ("Gemm_353",)),)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not valid JSON: line 1"),
        ("[]", "must hold a JSON object"),
        ({}, "is not a compiled network's: it has no list 'graph'"),
        ({"graph": []}, "it has no list 'graph'"),
        ({"graph": [{"name": "g"}]}, "$.graph[0] has no list 'op'"),
        ({"graph": [3]}, "$.graph[0] has no list 'op'"),
        (network(3), "$.graph[0].op[0] is no operator"),
        (network(operator("a"), {"name": "b", "attr": [{"value": 1}]}), "$.graph[0].op[1] is no operator"),
        (
            network({"name": "b", "attr": [{"key": "_fe_weight_compress", "value": 1}]}),
            "$.graph[0].op[0] is no operator",
        ),
    ],
)
def test_a_damaged_file_or_another_one_is_refused_with_what_was_found(read, document, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(document)
    assert message in str(caught.value)
    assert caught.value.remedy


def test_a_missing_file_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        read_mapping_file(tmp_path / "net.json")
