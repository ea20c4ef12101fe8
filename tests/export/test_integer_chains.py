"""With tensors between layers quantized, ONNX Runtime runs on integers from end to end, and gives the same numbers."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

NETS = {
    "residual": """g (float[N,8,6,6] x) => (float[N,4] y) {
        a = Conv<pads = [1,1,1,1]>(x, w) ar = Relu(a) b = Conv<pads = [1,1,1,1]>(ar, v) s = Add(ar, b) r = Relu(s)
        p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB = 1>(f, u) }""",
    "relu6": """g (float[N,8,6,6] x) => (float[N,4] y) {
        a = Conv<pads = [1,1,1,1]>(x, w) ar = Clip(a, low, high) b = Conv<pads = [1,1,1,1]>(ar, v)
        r = Clip(b, low, high) s = Add(ar, r) p = GlobalAveragePool(s) f = Flatten(p) y = Gemm<transB = 1>(f, u) }""",
    "branches": """g (float[N,8,6,6] x) => (float[N,4] y) {
        a = Conv<pads = [1,1,1,1]>(x, w) m = MaxPool<kernel_shape = [2,2]>(a) b = Conv(x, v) p = Pad(b, widths)
        c = Concat<axis = 1>(m, p) d = Mul(c, c) q = GlobalAveragePool(d) f = Flatten(q)
        y = Gemm<transB = 1>(f, u2) }""",
}


@pytest.fixture
def network(write_network: Callable) -> Callable:
    def write(name: str):
        rng = np.random.default_rng(0)
        shapes = {"w": (8, 8, 3, 3), "v": (8, 8, 3, 3), "u": (4, 8), "u2": (4, 16)}
        arrays = {n: (rng.normal(size=s) / np.sqrt(np.prod(s[1:]))).astype(np.float32) for n, s in shapes.items()}
        widths = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
        arrays |= {"low": np.float32(0), "high": np.float32(1.5), "widths": widths}
        text = NETS[name]
        return write_network(text, {n: array for n, array in arrays.items() if f" {n})" in text or f" {n}," in text})

    return write


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(32, 8, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_both_forms_give_the_same_numbers(name, offset, network, images, quantize, run_network) -> None:
    flow = quantize(network(name), [images], activation_offset=offset)
    assert any(":" in layer for layer in flow.layers)
    files = flow.saved.files
    fake_quant = run_network(files["fake_quant_model"], {"x": images})["y"]
    plain, fused = (run_network(files["deploy_model"], {"x": images}, level)["y"] for level in ("DISABLE", "ALL"))
    spread = fake_quant.std()
    # Unfused, both compute the same; in integers a sum on the other side of a tie moves a level.
    np.testing.assert_allclose(plain, fake_quant, atol=0.02 * spread)
    np.testing.assert_allclose(fused, fake_quant, atol=0.1 * spread)


@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("name", ["residual", "relu6"])
def test_onnxruntime_runs_on_integers_from_end_to_end(name, offset, network, images, quantize, optimized) -> None:
    flow = quantize(network(name), [images], activation_offset=offset)
    operators = Counter(node.op_type for node in optimized(flow.saved.files["deploy_model"]).graph)
    assert operators["QLinearConv"] == 2
    assert operators["QLinearAdd"] == operators["QLinearGlobalAveragePool"] == operators["QGemm"] == 1
    assert operators["QuantizeLinear"] == 1, "the network's input"
    assert operators["DequantizeLinear"] == 0


def test_clipping_where_the_grid_reaches_further_is_on_levels(network, images, quantize) -> None:
    def wide(document):
        # Ends well above 1.5, where the network clips.
        for block in document.values():
            if isinstance(block, dict):
                block["activation_quant_params"] = {"act_algo": "ifmr", "search_range": [1.5, 1.6]}

    flow = quantize(network("relu6"), [images], edit=wide)
    graph = flow.model("deploy_model").graph
    clips = [node for node in graph if node.op_type == "Clip"]
    assert clips and all(node.inputs[0].producer().op_type == "QuantizeLinear" for node in clips)
    assert all(node.inputs[2].const_value.numpy().dtype == np.uint8 for node in clips)
