"""Quantizers and weights that several layers share, names that are taken, and what must stay as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.errors import AmctError

TWO_ON_ONE = """g (float[N,4,8,8] x) => (y, z) {
  [first] y = Conv (x, w1) [second] z = Conv<pads=[1,1,1,1]> (x, w2)
}"""
TIED = """g (float[N,16] x) => (y) {
  [first] a = MatMul (x, w) b = Relu (a) [second] y = MatMul (b, w)
}"""
CHAIN = """g (float[N,4,8,8] x) => (y, feature) {
  [conv1] feature = Conv (x, w1) [conv2] y = Conv (feature, w2)
}"""
FORMS = [("onnxruntime", "deploy_model"), ("onnxruntime", "fake_quant_model"), ("ascend", "deploy_model")]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def count(model: ir.Model, *op_types: str) -> int:
    return sum(node.op_type in op_types for node in model.graph)


@pytest.mark.parametrize(("target", "form"), FORMS)
def test_same_grid_on_one_tensor_is_one_quantizer(
    target: str, form: str, write_network: Callable[..., Path], quantize: Callable[..., Any]
) -> None:
    file = write_network(TWO_ON_ONE, {"w1": normal(6, 4, 3, 3), "w2": normal(5, 4, 3, 3)})
    flow = quantize(file, [normal(2, 4, 8, 8)], target=target)
    assert count(flow.model(form), "QuantizeLinear", "AscendQuant") == 1


@pytest.mark.parametrize(("target", "form"), FORMS)
@pytest.mark.parametrize("differs", ["range", "nuq"])
def test_different_grids_on_one_tensor_are_two_quantizers(
    target: str,
    form: str,
    differs: str,
    write_network: Callable[..., Path],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
) -> None:
    def edit(document: dict[str, Any]) -> None:
        params = document["second"]["activation_quant_params"]
        if differs == "range":
            document["second"]["activation_quant_params"] = {"act_algo": "minmax", "asymmetric": False}
        else:
            params["nuq"] = {"target_compression_ratio": 0.1}

    file = write_network(TWO_ON_ONE, {"w1": normal(6, 4, 4, 4), "w2": normal(5, 4, 4, 4)})
    flow = quantize(file, [normal(2, 4, 8, 8)], target=target, edit=edit)
    model = flow.model(form)
    assert count(model, "QuantizeLinear", "AscendQuant") == 2
    first, second = (node for node in model.graph if node.op_type == "Conv")
    assert first.inputs[0] is not second.inputs[0]


@pytest.mark.parametrize(("target", "form"), FORMS)
def test_tied_weights_stay_tied(
    target: str, form: str, write_network: Callable[..., Path], quantize: Callable[..., Any]
) -> None:
    flow = quantize(write_network(TIED, {"w": normal(16, 16)}), [normal(20, 16)], target=target)
    model = flow.model(form)
    first, second = (node.inputs[1] for node in model.graph if node.op_type == "MatMul")
    assert first is second
    matrices = [v for v in model.graph.initializers.values() if len(v.const_value.shape) == 2]
    assert len(matrices) == 1
    rows = flow.saved.summary.layers
    assert [row.num_weights for row in rows] == [256, 0]
    assert flow.saved.summary.totals["bytes_before"] == 4 * 256


def test_weight_that_is_used_otherwise_stays_float(
    write_network: Callable[..., Path], quantize: Callable[..., Any], run_network: Callable[..., Any]
) -> None:
    text = "g (float[N,16] x) => (y, s) { [a] h = MatMul (x, w) s = ReduceSum (w) [b] y = MatMul (h, v) }"
    file = write_network(text, {"w": normal(16, 16), "v": normal(16, 8)})
    flow = quantize(file, [normal(20, 16)])
    assert list(flow.layers) == ["b"]
    row = flow.saved.summary.layers[0]
    assert row.form == "float"
    assert "also used" in str(row.reason)
    for kind in ("fake_quant_model", "deploy_model"):
        out = run_network(flow.saved.files[kind], {"x": normal(20, 16)}, "DISABLE")
        np.testing.assert_array_equal(out["s"], run_network(file, {"x": normal(20, 16)})["s"])


PLAIN = """g (float[N,4,8,8] x) => (y, z) {
  [conv1] a = Conv (x, w1) [relu] b = Relu (a) [conv2] y = Conv (b, w2) [neg] z = Neg (b)
}"""
TAKEN_VALUES = {"a": "conv1.dequant", "b": "conv1.quant", "w1": "conv1.quant.scale", "w2": "w1.quantized"}
TAKEN_NODES = {"relu": "conv1.quant", "neg": "conv2.dequant"}


def take_names(file: Path) -> None:
    """Give a model's values and nodes the names that quantization would like to give."""
    model = ir.load(file)
    values = {value.name: value for node in model.graph for value in (*node.inputs, *node.outputs)}
    for old, new in TAKEN_VALUES.items():
        values[old].name = new
    for node in model.graph:
        node.name = TAKEN_NODES.get(node.name, node.name)
    ir.save(model, file)


@pytest.mark.parametrize(("target", "form"), FORMS)
def test_taken_names_do_no_harm(
    target: str,
    form: str,
    write_network: Callable[..., Path],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    run_ascend: Callable[..., Any],
) -> None:
    file, x = write_network(PLAIN, {"w1": normal(4, 4, 3, 3), "w2": normal(5, 4, 3, 3)}), normal(2, 4, 8, 8)
    run = run_ascend if (target, form) == ("ascend", "deploy_model") else run_network
    expected = run(quantize(file, [x], target=target).saved.files[form], {"x": x})
    take_names(file)
    flow = quantize(file, [x], target=target)
    found = run(flow.saved.files[form], {"x": x})
    for name in ("y", "z"):
        np.testing.assert_array_equal(found[name], expected[name])
    graph = flow.model(form).graph
    values = [*graph.initializers, *(value.name for node in graph for value in node.outputs)]
    assert len(set(values)) == len(values)
    nodes = [node.name for node in graph]
    assert len(set(nodes)) == len(nodes)


@pytest.mark.parametrize(("target", "form"), FORMS)
def test_inputs_and_outputs_keep_their_names(
    target: str,
    form: str,
    write_network: Callable[..., Path],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    run_ascend: Callable[..., Any],
) -> None:
    file = write_network(CHAIN, {"w1": normal(6, 4, 3, 3), "w2": normal(5, 6, 3, 3)})
    x = normal(2, 4, 8, 8)
    flow = quantize(file, [x], target=target)
    model, before = flow.model(form), ir.load(file)
    assert [(v.name, v.dtype, str(v.shape)) for v in model.graph.inputs] == [
        (v.name, v.dtype, str(v.shape)) for v in before.graph.inputs
    ]
    assert [v.name for v in model.graph.outputs] == ["y", "feature"]
    run = run_ascend if (target, form) == ("ascend", "deploy_model") else run_network
    exact, found = run_network(file, {"x": x}), run(flow.saved.files[form], {"x": x})
    for name in ("y", "feature"):
        assert np.abs(found[name] - exact[name]).max() < 0.05 * np.abs(exact[name]).max()


def test_skipped_layers_are_left_bit_equal(
    write_network: Callable[..., Path], quantize: Callable[..., Any], run_network: Callable[..., Any]
) -> None:
    text = """g (float[N,16] x, float[N,16] u) => (y, v) {
      [a] y = MatMul (x, w) [b] v = MatMul (u, t)
    }"""
    file = write_network(text, {"w": normal(16, 8), "t": normal(16, 9)})
    feeds = {"x": normal(20, 16), "u": normal(21, 16)[:20]}
    flow = quantize(file, [feeds], skip_layers=["b"])
    exact = run_network(file, feeds, "DISABLE")
    for kind in ("fake_quant_model", "deploy_model"):
        found = run_network(flow.saved.files[kind], feeds, "DISABLE")
        np.testing.assert_array_equal(found["v"], exact["v"])
        assert not np.array_equal(found["y"], exact["y"])


def test_nothing_to_quantize_is_an_error(write_network: Callable[..., Path], quantize: Callable[..., Any]) -> None:
    file = write_network("g (float[N,16] x) => (y) { [a] y = MatMul (x, w) }", {"w": normal(16, 8)})

    def disable(document: dict[str, Any]) -> None:
        document["a"]["quant_enable"] = False

    with pytest.raises(AmctError, match="No quant enable layer"):
        quantize(file, [normal(20, 16)], edit=disable)


SUBGRAPH = """g (float[N,4] x, bool[1] c) => (y) {
  [layer] h = MatMul (x, w)
  y = If (c) <
    then_branch = t () => (p) { inner = Relu (h) p = Neg (inner) },
    else_branch = e () => (q) { q = Identity (h) }
  >
}"""


@pytest.mark.parametrize(("target", "form"), FORMS)
def test_subgraphs_see_the_dequantized_tensor(
    target: str,
    form: str,
    write_network: Callable[..., Path],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    run_ascend: Callable[..., Any],
) -> None:
    file = write_network(SUBGRAPH, {"w": normal(4, 4)})
    # The plan's default name of the quantizer's value, inside a branch.
    model = ir.load(file)
    branch = next(node for node in model.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    next(iter(branch)).outputs[0].name = "layer.quant"
    ir.save(model, file)
    feeds = {"x": normal(20, 4), "c": np.array([True])}
    flow = quantize(file, [feeds], target=target)
    run = run_ascend if (target, form) == ("ascend", "deploy_model") else run_network
    exact = run_network(file, feeds)["y"]
    assert np.abs(run(flow.saved.files[form], feeds)["y"] - exact).max() < 0.05 * np.abs(exact).max()
    assert "layer.quant" not in {value.name for node in flow.model(form).graph for value in node.outputs}
