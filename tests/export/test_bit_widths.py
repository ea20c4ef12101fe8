"""Weights of 4 to 8 bits and inputs of 16 in every form: the same numbers, or a refusal that says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import amct_lite
from amct_lite.caffe_layers import fake_quantize
from amct_lite.errors import ConfigError, ExportError
from amct_lite.export.ascend import ascend_model
from amct_lite.export.qdq import qdq_model
from amct_lite.export.storage import Storage, stored_weight_bytes
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.plan import CODEBOOK_OVERHEAD_BYTES
from amct_lite.types import Grid
from amct_lite.uniform.grid import dequantize
from amct_lite.uniform.grid import quantize as to_levels

NETWORK = """g (float[N,3,10,10] x) => (y) {
    [first] a = Conv<pads=[1,1,1,1]> (x, w1, b1)
    r = Relu (a)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]> (r)
    [second] c = Conv (p, w2, b2)
    f = Flatten (c)
    [third] y = Gemm<transB=1> (f, w3, b3)
}"""
SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (6, 8, 3, 3), "b2": (6,), "w3": (10, 54), "b3": (10,)}


@pytest.fixture
def network(write_network: Callable[..., Path]) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return write_network(NETWORK, weights), rng.normal(size=(8, 3, 10, 10)).astype(np.float32)


def widths(**by_layer: tuple[int, int]) -> Callable[[dict[str, Any]], None]:
    """Layer -> (bits of its weight, bits of its input)."""

    def edit(config: dict[str, Any]) -> None:
        for name, (weight_bits, activation_bits) in by_layer.items():
            config[name]["weight_quant_params"]["num_bits"] = weight_bits
            config[name]["activation_quant_params"]["num_bits"] = activation_bits

    return edit


@pytest.mark.parametrize("weight_bits", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("activation_bits", [8, 16])
def test_forms_for_onnxruntime_agree_at_every_width(network, run_network, quantize, weight_bits, activation_bits):
    file, x = network
    each = (weight_bits, activation_bits)
    flow = quantize(file, [x], edit=widths(first=each, second=each, third=each))
    deploy, fake = (flow.saved.files[f"{form}_model"] for form in ("deploy", "fake_quant"))
    for path in (deploy, fake):
        onnx.checker.check_model(str(path), full_check=True)
    expected = run_network(fake, {"x": x})["y"]
    for level in ("DISABLE", "ALL"):
        # A value on the edge between two levels of 8 bits may fall either way, by the order of summation.
        close = np.isclose(run_network(deploy, {"x": x}, level)["y"], expected, rtol=1e-3, atol=1e-3)
        assert close.mean() > 0.9
        np.testing.assert_allclose(run_network(deploy, {"x": x}, level)["y"], expected, atol=0.05 * expected.std())
    for layer in flow.layers.values():
        assert layer.weight.dtype == np.int8
        assert layer.grid.num_bits == activation_bits
        assert layer.weight.min() >= -(2 ** (weight_bits - 1))
        assert layer.weight.max() == 2 ** (weight_bits - 1) - 1 or layer.weight.min() == -(2 ** (weight_bits - 1))
    assert (flow.model("deploy_model").opset_imports[""] >= 21) == (activation_bits == 16)


def test_the_input_of_16_bits_decodes_to_the_grids_numbers_in_both_forms(network, run_network, quantize):
    file, x = network
    flow = quantize(file, [x], edit=widths(first=(8, 16)))
    layer = flow.layers["first"]
    assert layer.grid.num_bits == 16
    expected = dequantize(to_levels(x, layer.grid), layer.grid)
    for form in ("fake_quant", "deploy"):
        model = flow.model(f"{form}_model")
        decoded = next(node for node in model.graph if node.name == "first").inputs[0].name
        session = create_session(model, extra_outputs=[decoded])
        assert np.array_equal(session.run([decoded], {"x": x})[0], expected), form


def test_more_bits_are_never_worse(network, run_network, quantize):
    file, x = network
    exact = run_network(file, {"x": x})["y"]
    errors = []
    for each in ((4, 8), (6, 8), (8, 8), (8, 16)):
        flow = quantize(file, [x], edit=widths(first=each, second=each, third=each))
        fake = run_network(flow.saved.files["fake_quant_model"], {"x": x})["y"]
        errors.append(float(np.mean((fake - exact) ** 2)))
    assert errors == sorted(errors, reverse=True)


def test_each_layer_may_have_its_own_widths(network, quantize):
    file, x = network
    flow = quantize(file, [x], edit=widths(first=(8, 16), second=(4, 8), third=(6, 16)))
    found = {name: (layer.weight_bits, layer.grid.num_bits) for name, layer in flow.layers.items()}
    assert found == {"first": (8, 16), "second": (4, 8), "third": (6, 16)}
    summary = {layer.name: layer for layer in flow.saved.summary.layers}
    assert summary["second"].levels <= 16
    assert summary["first"].activation_levels == 2**16


@pytest.mark.parametrize("weight_bits", [4, 6, 7])
def test_few_bits_are_packed_on_request_and_decode_to_the_same_numbers(
    network, run_network, quantize, tmp_path, weight_bits
):
    file, x = network
    each = (weight_bits, 8)
    flow = quantize(file, [x], edit=widths(first=each, second=each, third=each))
    packed = amct_lite.save_model(flow.graph, "Deploy", tmp_path / "packed" / "net", storage="packed")
    expected = run_network(flow.saved.files["deploy_model"], {"x": x})["y"]
    assert np.array_equal(run_network(packed.files["deploy_model"], {"x": x})["y"], expected)
    for layer in flow.layers.values():
        packed_bytes = stored_weight_bytes(layer, Storage.PACKED) - CODEBOOK_OVERHEAD_BYTES
        assert packed_bytes < stored_weight_bytes(layer, Storage.INT8) * weight_bits / 8 + 6 * 2**weight_bits + 64


def test_ascend_takes_few_bits_of_weights_and_computes_the_same(network, run_network, run_ascend, quantize):
    file, x = network
    flow = quantize(file, [x], target="ascend", edit=widths(first=(4, 8), second=(6, 8), third=(5, 8)))
    fake = run_network(flow.saved.files["fake_quant_model"], {"x": x})["y"]
    deployed = run_ascend(flow.saved.files["deploy_model"], {"x": x})["y"]
    np.testing.assert_allclose(deployed, fake, atol=0.05 * fake.std())


def test_ascend_refuses_inputs_of_16_bits(network, quantize):
    file, x = network
    with pytest.raises(ConfigError, match=r"num_bits 16 is too wide .* holds int8") as caught:
        quantize(file, [x], target="ascend", edit=widths(second=(8, 16)))
    assert caught.value.layer == "second"
    assert "onnxruntime" in caught.value.remedy


def test_a_record_of_16_bits_does_not_reach_the_ascend_form(network, quantize):
    file, x = network
    flow = quantize(file, [x], edit=widths(second=(8, 16)))
    with pytest.raises(ExportError, match="has 16 bits"):
        ascend_model(flow.graph.model, list(flow.layers.values()))


def test_an_operator_set_that_cannot_be_raised_is_refused(network, quantize, monkeypatch):
    file, x = network
    flow = quantize(file, [x], edit=widths(second=(8, 16)))

    def fail(*_args: Any) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(ExportError, match=r"opset 21 on\. .*no adapter") as caught:
        qdq_model(flow.graph.model, list(flow.layers.values()))
    assert caught.value.layer == "second"


@pytest.mark.parametrize("offset", [0, -30_000])
def test_the_layer_of_caffe_pairs_gives_the_same_numbers_at_16_bits(network, offset):
    _, x = network
    grid = Grid(scale=1e-4, offset=offset, num_bits=16)
    assert np.array_equal(fake_quantize(x, grid.scale, offset, 16), dequantize(to_levels(x, grid), grid))
