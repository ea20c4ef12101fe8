"""FORCE_FP16_QUANT: levels are those of float16 arithmetic, scales lose 13 bits, in ONNX and in Caffe."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.caffe.reading import read_network
from amct_lite.caffe_layers import fake_quantize
from amct_lite.errors import ConfigError, ExportError
from amct_lite.export.float16 import to_19_bits
from amct_lite.files.record import read_record
from amct_lite.search.calibration import refuse_refinement
from tests.ascend_reference.caffe_deploy import run_layers
from tests.ascend_reference.caffe_networks import residual_pair

FORCE = {"fakequant_precision_mode": "FORCE_FP16_QUANT"}
NETWORK = (
    """g (float[N,3,8,8] x) => (y, z) { [conv] y = Conv(x, w, b) [pool] z = AveragePool<kernel_shape = [2,2]>(x) }"""
)


def levels_in_float16(x: np.ndarray, scale: float, offset: int) -> np.ndarray:
    """The definition, in numpy's own float16 arithmetic; levels without their offset."""
    steps = x.astype(np.float16) * np.float16(np.float32(1) / np.float32(scale))
    return np.clip(np.rint(steps.astype(np.float32)) + offset, -128, 127) - offset


def test_scales_keep_sign_exponent_and_ten_bits_of_mantissa() -> None:
    scales = np.random.default_rng(0).lognormal(-5, 3, 1000).astype(np.float32)
    short = to_19_bits(scales)
    assert not (short.view(np.uint32) & 0x1FFF).any()
    assert (short <= scales).all() and (short > scales * (1 - 2.0**-10)).all()


@pytest.fixture
def network(write_network: Callable) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "b": (4,)}
    return write_network(NETWORK, {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()})


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(0.5, 1, (4, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("level", ["DISABLE", "ALL"])
def test_the_form_computes_float16_levels_and_short_scales(network, x, level, quantize, run_network) -> None:
    flow = quantize(network, [x], target="ascend", edit=lambda document: document.update(FORCE))
    outputs = run_network(flow.saved.files["fake_quant_model"], {"x": x}, level)
    conv, pool = flow.layers["conv"], flow.layers["pool"]
    levels = levels_in_float16(x, conv.grid.scale, conv.grid.offset)
    windows = np.lib.stride_tricks.sliding_window_view(levels.astype(np.float64), (3, 3), axis=(2, 3))
    sums = np.einsum("ncijhw,ochw->noij", windows, conv.weight) + conv.bias[:, None, None]
    expected = sums * to_19_bits(conv.bias_scale())[:, None, None]
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-5, atol=1e-5)
    levels = levels_in_float16(x, pool.grid.scale, 0)
    means = np.lib.stride_tricks.sliding_window_view(levels.astype(np.float64), (2, 2), axis=(2, 3)).mean(axis=(4, 5))
    np.testing.assert_allclose(outputs["z"], means * to_19_bits(np.float32([pool.grid.scale])), rtol=1e-5, atol=1e-6)


def test_layers_that_share_a_weight_have_scales_of_their_own(write_network, x, quantize, run_network) -> None:
    text = "g (float[N,3,8,8] x) => (y, z) { [one] y = Conv(x, w) [big] t = Mul(x, c) [two] z = Conv(t, w) }"
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "c": np.float32(3.7)}
    flow = quantize(write_network(text, weights), [x], target="ascend", edit=lambda document: document.update(FORCE))
    outputs = run_network(flow.saved.files["fake_quant_model"], {"x": x})
    for name, output, data in (("one", "y", x), ("two", "z", x * np.float32(3.7))):
        layer = flow.layers[name]
        levels = levels_in_float16(data, layer.grid.scale, layer.grid.offset).astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(levels, (3, 3), axis=(2, 3))
        expected = np.einsum("ncijhw,ochw->noij", windows, layer.weight)
        expected = expected * to_19_bits(layer.bias_scale())[:, None, None]
        np.testing.assert_allclose(outputs[output], expected, rtol=2e-5, atol=2e-5)


def test_the_mode_changes_the_fake_quant_form_alone_and_stands_in_the_record(network, x, quantize) -> None:
    plain = quantize(network, [x], target="ascend")
    forced = quantize(network, [x], target="ascend", edit=lambda document: document.update(FORCE))
    same, other = (
        lambda flow, kind=kind: flow.saved.files[kind].read_bytes() for kind in ("deploy_model", "fake_quant_model")
    )
    assert same(plain) == same(forced) and other(plain) != other(forced)
    record = forced.graph.record_file.read_text()
    assert record.count('fakequant_precision_mode: "FORCE_FP16_QUANT"') == 2
    assert "fakequant_precision_mode" not in plain.graph.record_file.read_text()
    assert read_record(forced.graph.record_file)["conv"].fakequant_precision_mode == "FORCE_FP16_QUANT"


def test_the_config_may_change_its_mind_without_a_calibration(network, x, quantize, tmp_path) -> None:
    forced = quantize(network, [x], target="ascend", edit=lambda document: document.update(FORCE))
    config = forced.folder / "config.json"
    document = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in document.items() if key not in FORCE}))
    graph = amct.init(config, network, scale_offset_record_file=forced.graph.record_file)
    again = amct.save_model(graph, "Fakequant", tmp_path / "again" / "net").files["fake_quant_model"]
    plain = quantize(network, [x], target="ascend").saved.files["fake_quant_model"]
    assert again.read_bytes() == plain.read_bytes()


def test_nuq_of_activations_takes_float16_levels_too(network, x, quantize, run_network) -> None:
    def edit(document: dict) -> None:
        document.update(FORCE)
        document["conv"]["activation_quant_params"]["nuq"] = {"target_compression_ratio": 0.0625}
        del document["pool"]

    flow = quantize(network, [x], target="ascend", edit=edit_for_rank4(edit), save_type="Fakequant")
    conv = flow.layers["conv"]
    outputs = run_network(flow.saved.files["fake_quant_model"], {"x": x})
    index = (levels_in_float16(x, conv.grid.scale, conv.grid.offset) + conv.grid.offset + 128).astype(int)
    levels = conv.activation_table().astype(np.float64)[index] - conv.grid.offset
    windows = np.lib.stride_tricks.sliding_window_view(levels, (3, 3), axis=(2, 3))
    sums = np.einsum("ncijhw,ochw->noij", windows, conv.weight) + conv.bias[:, None, None]
    expected = sums * to_19_bits(conv.bias_scale())[:, None, None]
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-5, atol=1e-5)


def edit_for_rank4(edit: Callable[[dict], None]) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        document["target"] = "ascend-rank4"
        edit(document)

    return change


def test_targets_that_quantize_in_float32_and_searches_refuse_it(network, x, tmp_path) -> None:
    config = tmp_path / "config.json"
    amct.create_quant_config(config, network, target="onnxruntime")
    config.write_text(json.dumps(json.loads(config.read_text()) | FORCE))
    with pytest.raises(ConfigError, match="simulates Ascend devices, and the target 'onnxruntime'"):
        amct.init(config, network)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target": "ascend"}))
    with pytest.raises(ConfigError, match="round in float32"):
        refuse_refinement(amct.init(config, network))


def test_steps_beyond_float16_are_refused(network, x, quantize) -> None:
    with pytest.raises(ExportError, match="has a reciprocal that float16 cannot hold"):
        quantize(network, [x * 1e-4], target="ascend", edit=lambda document: document.update(FORCE))


def test_caffes_python_layer_and_the_graph_take_the_same_levels(tmp_path) -> None:
    pair, config = residual_pair(tmp_path), tmp_path / "config.json"
    amct.create_quant_config(config, *pair)
    config.write_text(json.dumps(json.loads(config.read_text()) | FORCE))
    graph = amct.init(config, *pair, tmp_path / "record.txt")
    amct.calibrate(graph, [np.random.default_rng(0).normal(size=(2, 3, 12, 12)).astype(np.float32)])
    files = amct.save_model(graph, "Both", tmp_path / "net").files
    network = read_network(files["fake_quant_model"], files["fake_quant_weights"])
    layers = [layer for layer in network.layers if layer.type == "Python"]
    records = graph.read_records()
    for layer in layers:
        parameters = json.loads(layer.params.python_param.param_str)
        record = records[layer.name.removesuffix("_0_quant_layer")]
        data = np.random.default_rng(1).normal(0, 40 * record.scale_d, (1, 2, 30, 30)).astype(np.float32)
        (ours,) = run_layers(network, (layer,), {layer.bottoms[0]: data}).values()
        np.testing.assert_array_equal(ours, fake_quantize(data, **parameters))
        scale = record.scale_d if layer.name != "pool2_0_quant_layer" else to_19_bits(np.float32([record.scale_d]))[0]
        np.testing.assert_array_equal(
            ours, levels_in_float16(data, record.scale_d, record.offset_d) * np.float32(scale)
        )
    assert len(layers) == 6
    weights = {layer.name: layer.blobs for layer in network.layers}
    quantized = {q.layer.name: q for q in amct_layers(graph)}
    for name in ("conv2", "up", "ip2"):
        layer = quantized[name]
        scale = to_19_bits(layer.bias_scale())
        np.testing.assert_allclose(weights[name][1], layer.bias * scale, rtol=1e-6)


def amct_layers(graph):
    from amct_lite.quantize.apply_record import quantized_layers

    return quantized_layers(graph.model, graph.read_records())
