"""The Ascend deploy model on the digits network: its format, and that integers give the fake-quant outputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.export.ascend_param import pack_dequant_param
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from tests.ascend_reference.arithmetic import unpack


@pytest.mark.parametrize(
    ("target", "weights", "activations"),
    [
        ("ascend", False, False),
        ("ascend", True, False),
        ("ascend", False, True),
        ("ascend", True, True),
        ("ascend-rank4", True, True),
    ],
)
def test_integers_give_the_fake_quant_outputs(
    target: str,
    weights: bool,
    activations: bool,
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
    run_ascend: Callable[..., Any],
) -> None:
    split = load_split()
    flow = quantize(MODEL_FILE, [split.calibration.images], target=target, edit=nuq(weights, activations))
    feeds = {"image": split.held_out.images[:16]}
    fake = run_network(flow.saved.files["fake_quant_model"], feeds, "DISABLE")["logits"]
    deployed = run_ascend(flow.saved.files["deploy_model"], feeds)["logits"]
    step = float(np.abs(fake).max()) / 127
    difference = np.abs(deployed - fake)
    assert difference.max() < step
    # Where no value falls on a rounding bound, only float32 sums differ.
    assert np.median(difference) < 1e-5


def test_format_is_that_of_amct(quantize: Callable[..., Any]) -> None:
    flow = quantize(MODEL_FILE, [load_split().calibration.images], target="ascend")
    graph = flow.model("deploy_model").graph
    nodes = {node.name: node for node in graph}
    assert {node.domain for node in graph} == {""}
    assert set(flow.layers) == {"conv1", "conv2", "pool", "conv3", "fc1", "fc2"}
    for name, layer in flow.layers.items():
        quant, node, dequant = nodes[f"{name}.quant"], nodes[name], nodes[f"{name}.dequant"]
        assert (quant.op_type, dequant.op_type) == ("AscendQuant", "AscendDequant")
        assert quant.attributes.get_string("dst_type") == "INT8"
        assert quant.attributes.get_float("scale") == np.float32(1) / np.float32(layer.grid.scale)
        assert quant.attributes.get_float("offset") == layer.grid.offset
        assert node.inputs[0].producer() is quant
        assert dequant.inputs[0].producer() is node
        assert dequant.inputs[0].dtype in (None, ir.DataType.INT32)
        param = dequant.inputs[1]
        assert param.name == f"{name}.dequant.param"
        assert param.const_value.dtype == ir.DataType.UINT64
        scale = param.const_value.numpy().astype(np.uint32).view(np.float32)
        if layer.weight is None:
            assert layer.grid.offset == 0
            np.testing.assert_array_equal(scale, np.float32([layer.grid.scale]))
            continue
        np.testing.assert_array_equal(scale, layer.scale_w * np.float32(layer.grid.scale))
        assert scale.size == (layer.weight.shape[0] if node.op_type == "Conv" else 1)
        assert node.inputs[1].const_value.dtype == ir.DataType.INT8
        assert node.inputs[2].const_value.dtype == ir.DataType.INT32


def test_dequant_param_holds_scale_shift_and_weight_offset_in_amcts_bits() -> None:
    scales = np.float32([0.5, 2.0])
    packed = pack_dequant_param(scales, shift_bit=(16, 3), offset_w=(-1, 5))
    np.testing.assert_array_equal(packed & np.uint64(0xFFFFFFFF), scales.view(np.uint32))
    np.testing.assert_array_equal((packed & np.uint64(0xFF00000000)) >> np.uint64(32), [16, 3])
    np.testing.assert_array_equal((packed & np.uint64(0xFF0000000000)) >> np.uint64(40), [255, 5])
    np.testing.assert_array_equal(packed >> np.uint64(48), 0)
    read = unpack(packed)
    np.testing.assert_array_equal(read.scale, scales)
    np.testing.assert_array_equal(read.weight_offset, [-1, 5])


def test_layers_that_quantize_a_tensor_alike_share_one_quant_node(write_network, quantize) -> None:
    rng = np.random.default_rng(0)
    text = "g (float[N,3,6,6] x) => (y, z) { [one] y = Conv (x, w) [two] z = Conv (x, v) }"
    weights = {name: rng.normal(size=(4, 3, 1, 1)).astype(np.float32) for name in ("w", "v")}
    flow = quantize(write_network(text, weights), [rng.normal(size=(2, 3, 6, 6)).astype(np.float32)], target="ascend")
    graph = flow.model("deploy_model").graph
    assert [node.name for node in graph if node.op_type == "AscendQuant"] == ["one.quant"]
    assert graph.node("one").inputs[0] is graph.node("two").inputs[0]


@pytest.mark.parametrize(
    ("text", "weights", "shape"),
    [
        (
            "g (float[N,3,6,6] x, float[4] bias) => (y) { [layer] y = Conv (x, w, bias) }",
            {"w": (4, 3, 3, 3)},
            (2, 3, 6, 6),
        ),
        (
            "g (float[N,6] x, float[4] bias) => (y) { [layer] h = Gemm<transB=1> (x, w, bias) y = Relu (h) }",
            {"w": (4, 6)},
            (5, 6),
        ),
    ],
    ids=["conv", "gemm"],
)
def test_bias_that_is_not_constant_stays_float(
    text: str,
    weights: dict[str, tuple[int, ...]],
    shape: tuple[int, ...],
    write_network: Callable[..., Any],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    run_ascend: Callable[..., Any],
) -> None:
    rng = np.random.default_rng(0)
    file = write_network(text, {name: rng.normal(size=size).astype(np.float32) for name, size in weights.items()})
    feeds = {"x": rng.normal(size=shape).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}
    for target, run in (("ascend", run_ascend), ("onnxruntime", run_network)):
        flow = quantize(file, [feeds], target=target)
        fake = run_network(flow.saved.files["fake_quant_model"], feeds)["y"]
        np.testing.assert_allclose(run(flow.saved.files["deploy_model"], feeds)["y"], fake, rtol=1e-5, atol=1e-5)
        exact = run_network(file, feeds)["y"]
        assert np.abs(fake - exact).max() < 0.05 * np.abs(exact).max()
