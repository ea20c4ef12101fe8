"""Record and float weight together: the numbers of every form, and refusals where the two do not fit."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.codebook.weight_nuq import cluster_weight
from amct_lite.errors import RecordError
from amct_lite.files.record import LayerRecord, read_record, write_record
from amct_lite.graph.model import Model, load_model
from amct_lite.quantize.apply_record import quantize_layer, quantized_layers
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.uniform.arq import weight_scales

CONV = "net (float[1, 4, 9, 9] x) => (float[1, 6, 7, 7] y) { [conv] y = Conv(x, w, b) }"
POOL = "net (float[1, 4, 9, 9] x) => (float[1, 4, 8, 8] y) { [pool] y = AveragePool <kernel_shape = [2, 2]> (x) }"
TIED = """net (float[1, 4, 9, 9] x) => (float[1, 4, 5, 5] y) {
    [one] a = Conv(x, w)
    [two] y = Conv(a, w)
}"""
FITTING = LayerRecord(scale_d=0.5, offset_d=3, scale_w=(0.25,) * 6, offset_w=(0,) * 6)


@pytest.fixture
def conv_model(write_network, rng) -> Model:
    weights = {"w": rng.normal(size=(6, 4, 3, 3)).astype(np.float32), "b": np.arange(6, dtype=np.float32)}
    return load_model(write_network(CONV, weights))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def only(model: Model, record: LayerRecord) -> QuantizedLayer:
    return quantize_layer(model, model.layers[0], record)


def test_the_numbers_are_the_records_and_the_weights(conv_model: Model) -> None:
    found = only(conv_model, FITTING)
    weight, bias = conv_model.weight("w"), conv_model.weight("b")
    np.testing.assert_array_equal(found.weight, np.clip(np.rint(weight / np.float32(0.25)), -128, 127))
    np.testing.assert_array_equal(found.bias, np.rint(bias / 0.125))
    assert (found.grid.scale, found.grid.offset, found.scale_axis) == (0.5, 3, 0)
    assert found.weight_levels is found.activation_levels is found.activation_table() is None


def test_one_scale_serves_the_whole_tensor(conv_model: Model) -> None:
    found = only(conv_model, dataclasses.replace(FITTING, scale_w=(0.25,), offset_w=(0,)))
    assert found.scale_axis is None
    np.testing.assert_array_equal(found.decode_weight(), only(conv_model, FITTING).decode_weight())


def test_decoding_is_level_times_scale_in_float32_exactly(conv_model: Model) -> None:
    scales = weight_scales(conv_model.weight("w"), axis=0)
    scale_d = float(np.float32(0.1))
    record = LayerRecord(scale_d=scale_d, scale_w=tuple(map(float, scales)))
    found = only(conv_model, record)
    assert found.weight is not None and found.bias is not None
    assert found.weight.dtype == np.int8 and found.bias.dtype == np.int32
    expected = found.weight.astype(np.float32) * scales[:, None, None, None]
    assert found.decode_weight().dtype == np.float32
    np.testing.assert_array_equal(found.decode_weight(), expected)
    np.testing.assert_array_equal(found.decode_bias(), found.bias.astype(np.float32) * (scales * np.float32(scale_d)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 16, 32, 256]), st.integers(0, 5), st.booleans())
def test_the_record_alone_gives_back_the_weight_that_the_clustering_chose(
    tmp_path_factory, seed: int, num_steps: int, num_of_iteration: int, per_channel: bool
) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_t(3, size=(5, 4, 3, 3)) * 10.0 ** rng.uniform(-6, 3)).astype(np.float32)
    axis = 0 if per_channel else None
    chosen = cluster_weight(
        weight,
        weight_scales(weight, axis=axis),
        axis=axis,
        num_steps=num_steps,
        num_of_iteration=num_of_iteration,
        importance=rng.uniform(size=(1, 4, 1, 1)),
    )
    path = tmp_path_factory.mktemp("record") / "record.txt"
    scales = tuple(map(float, chosen.scales))
    write_record({"conv": LayerRecord(scale_d=1.0, scale_w=scales, cluster=chosen.levels)}, path)
    found = quantize_layer(_FakeModel(weight), _FakeModel.layer(weight), read_record(path)["conv"])
    np.testing.assert_array_equal(found.weight, chosen.quantized)
    assert found.weight_levels == chosen.levels


class _FakeModel:
    """A model that is nothing but one weight, so that many can be tried."""

    def __init__(self, weight: np.ndarray) -> None:
        self._weight = weight
        self.equalized_layers: frozenset[str] = frozenset()
        self.balance_factors: dict[str, tuple[float, ...]] = {}

    def weight(self, name: str) -> np.ndarray:
        return self._weight

    @staticmethod
    def layer(weight: np.ndarray) -> Any:
        from amct_lite.types import Layer, LayerKind

        return Layer("conv", "Conv", LayerKind.CONVOLUTION, "x", 0, 1, "y", "w", 1, weight.shape)


def test_a_weight_of_one_value_needs_one_level_only(tmp_path: Path) -> None:
    weight = np.full((5, 4, 3, 3), 0.5, np.float32)
    chosen = cluster_weight(weight, weight_scales(weight, axis=0), axis=0, num_steps=16)
    write_record({"c": LayerRecord(scale_w=tuple(map(float, chosen.scales)), cluster=chosen.levels)}, tmp_path / "r")
    assert len(read_record(tmp_path / "r")["c"].cluster) == 1


def test_activation_levels_become_a_table_of_nearest_levels(conv_model: Model) -> None:
    table = only(conv_model, dataclasses.replace(FITTING, activation_cluster=(-128, 0, 100))).activation_table()
    assert table is not None and table.dtype == np.int8 and table.shape == (256,)
    for level in range(-128, 128):
        assert abs(int(table[level + 128]) - level) == min(abs(level - kept) for kept in (-128, 0, 100))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale_d": None, "scale_w": ()}, "cannot find scale_d of layer conv"),
        ({"scale_w": ()}, "cannot find scale_w of layer conv"),
        ({"scale_w": (0.25,) * 5}, "The record has 5 scale_w; the weight has 6 output channels."),
        ({"scale_w": (0.25,) * 24}, "The record has 24 scale_w; the weight has 6 output channels."),
        ({"scale_d": 1e-9, "scale_w": (1e-9,)}, "The bias does not fit the record's scales"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_layer_and_remedy(conv_model, change, message) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        only(conv_model, dataclasses.replace(FITTING, **change))
    assert caught.value.layer == "conv"
    assert caught.value.remedy


def test_weight_scales_for_a_layer_without_weights_are_refused(write_network) -> None:
    model = load_model(write_network(POOL, {}))
    found = only(model, LayerRecord(scale_d=0.5))
    assert found.weight is found.bias is None
    with pytest.raises(
        RecordError,
        match="find undesirable scale_w of layer pool in record_file: AveragePool has no",
    ):
        only(model, LayerRecord(scale_d=0.5, scale_w=(1.0,)))


def test_a_grouped_transposed_convolution_takes_one_scale(write_network) -> None:
    text = """net (float[1, 4, 5, 5] x) => (float[1, 6, 7, 7] y) { [up] y = ConvTranspose <group = 2> (x, w, b) }"""
    weights = {"w": np.ones((4, 3, 3, 3), np.float32), "b": np.ones(6, np.float32)}
    model = load_model(write_network(text, weights))
    assert only(model, LayerRecord(scale_d=0.5, scale_w=(0.5,))).bias is not None
    for count in (3, 6):
        with pytest.raises(RecordError, match=f"has {count} scale_w; a grouped transposed convolution takes one"):
            only(model, LayerRecord(scale_d=0.5, scale_w=(0.5,) * count))


def test_a_record_for_a_layer_that_the_model_does_not_have_is_refused(conv_model: Model) -> None:
    with pytest.raises(RecordError, match=r"find conv7 failure in model .*network\.onnx"):
        quantized_layers(conv_model, {"conv": FITTING, "conv7": FITTING})


def test_layers_that_share_a_weight_must_share_its_factors(write_network, rng) -> None:
    model = load_model(write_network(TIED, {"w": rng.normal(size=(4, 4, 3, 3)).astype(np.float32)}))
    record = LayerRecord(scale_d=0.5, scale_w=(0.25,), cluster=(-8, 0, 8))
    first, second = quantized_layers(model, {"two": dataclasses.replace(record, scale_d=0.75), "one": record})
    assert (first.layer.name, second.layer.name) == ("one", "two")
    np.testing.assert_array_equal(first.weight, second.weight)
    for change in ({"scale_w": (0.5,)}, {"cluster": (-8, 8)}, {"cluster_cost": (0.0, 1.0, 2.0)}):
        with pytest.raises(RecordError, match="It shares its weight with layer 'two'") as caught:
            quantized_layers(model, {"one": record, "two": dataclasses.replace(record, **change)})
        assert caught.value.layer == "one"
