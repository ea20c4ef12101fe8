"""The pass that takes QuantizeLinear and DequantizeLinear out, and what it puts in their place."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.errors import ModelError
from amct_lite.graph import save_ir
from amct_lite.graph.passes.quantizer_removal import remove_quantizers
from amct_lite.graph.passes.shapes import infer_shapes
from amct_lite.graph.quantizers import find_pair, quantizer_behind, read_quantizer

WEIGHTS = {"s": np.float32(0.5), "z": np.uint8(0), "s2": np.float32(0.25), "m": np.uint8(100)}
PAIR = "{0}q = QuantizeLinear ({0}, {1}, {2}) {0}d = DequantizeLinear ({0}q, {1}, {2})"


def network(make_graph: Callable, body: str, outputs: str = "y", opset: int = 13) -> ir.Model:
    text = f"g (float[1, 2, 4, 4] x) => ({outputs}) {{ {body} }}"
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    model = make_graph(text, {name: np.asarray(w) for name, w in WEIGHTS.items() if name in words}, opset=opset)
    infer_shapes(model)
    return model


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def pair(name: str, scale: str = "s", zero_point: str = "z") -> str:
    return PAIR.format(name, scale, zero_point)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        # Nothing below 0 is clipped, or nothing below 0 comes.
        (f"{pair('x', 's', 'm')} y = Neg (xd)", {"Neg"}),
        (f"a = Relu (x) {pair('a')} y = Neg (ad)", {"Relu", "Neg"}),
        (f"a = Relu (x) b = MaxPool <kernel_shape = [2, 2]> (a) {pair('b')} y = Neg (bd)", {"Relu", "MaxPool", "Neg"}),
        (f"a = Relu (x) b = Add (a, a) {pair('b')} y = Neg (bd)", {"Relu", "Add", "Neg"}),
        # Relu was left out.
        (f"{pair('x')} y = Neg (xd)", {"Clip", "Neg"}),
        (f"a = Neg (x) {pair('a')} y = Neg (ad)", {"Clip", "Neg"}),
        (f"a = Relu (x) b = Add (a, x) {pair('b')} y = Neg (bd)", {"Relu", "Add", "Clip", "Neg"}),
    ],
)
def test_a_clip_stands_only_where_a_grid_clipped_what_comes(make_graph, body: str, left: set[str]) -> None:
    model = network(make_graph, body)
    assert remove_quantizers(model)
    assert set(operators(model)) == left


def test_the_clip_has_the_ends_of_the_grid(make_graph, tmp_path, run_model) -> None:
    model = network(make_graph, f"{pair('x')} y = Neg (xd)")
    remove_quantizers(model)
    save_ir(model, tmp_path / "out.onnx")
    x = np.linspace(-300, 300, 32, dtype=np.float32).reshape(1, 2, 4, 4)
    np.testing.assert_array_equal(run_model(tmp_path / "out.onnx", {"x": x})["y"], -np.clip(x, 0, 127.5))


@pytest.mark.parametrize(("second", "clipped"), [("s", "MaxPool"), ("s2", "Neg")])
def test_one_clip_serves_two_grids_where_values_are_only_selected(make_graph, second: str, clipped: str) -> None:
    body = f"a = Neg (x) {pair('a')} b = MaxPool <kernel_shape = [2, 2]> (ad) {pair('b', second)} y = Neg (bd)"
    model = network(make_graph, body)
    remove_quantizers(model)
    # A grid with another upper end clips elsewhere; what it reads is not negative any more.
    assert operators(model)["Clip"] == 1
    clip = next(node for node in model.graph if node.op_type == "Clip")
    assert clip.inputs[0].producer().op_type == clipped


def test_a_reader_that_quantizes_again_needs_no_clip(make_graph) -> None:
    model = network(make_graph, f"a = Neg (x) {pair('a')} [one] y = Neg (ad) [two] y2 = Neg (ad)", "y, y2")
    nodes = {node.name: node for node in model.graph}
    remove_quantizers(model, [(nodes["one"], 0)])
    assert nodes["one"].inputs[0].producer().op_type == "Neg"
    assert nodes["two"].inputs[0].producer().op_type == "Clip"


def test_outputs_keep_their_names_and_shapes(make_graph) -> None:
    body = f"a = Neg (x) {pair('a', 's', 'm')} {pair('x', 's', 'm')} b = Neg (x) {pair('b')}"
    model = network(make_graph, body, "ad, xd, bd, b")
    before = [(value.name, value.shape, value.dtype) for value in model.graph.outputs]
    remove_quantizers(model)
    assert [(value.name, value.shape, value.dtype) for value in model.graph.outputs] == before
    assert operators(model) == {"Neg": 2, "Identity": 1, "Clip": 1}


def test_a_network_without_quantizers_is_left_alone(make_graph) -> None:
    model = network(make_graph, "y = Neg (x)")
    assert not remove_quantizers(model)
    assert operators(model) == {"Neg": 1}


def test_integers_are_decoded_once_for_all_that_read_them_alike(make_graph) -> None:
    text = """g (float[1, 2] x) => (y, y2)
    { a = DequantizeLinear <axis = 1> (w, t, u) b = DequantizeLinear <axis = 1> (w, t, u)
      y = MatMul (x, a) y2 = MatMul (x, b) }"""
    weights = {
        "w": np.array([[0, 128, 255], [1, 2, 3]], np.uint8),
        "t": np.array([1, 2, 4], np.float32),
        "u": np.full(3, 128, np.uint8),
    }
    model = make_graph(text, weights)
    remove_quantizers(model)
    (value,) = model.graph.initializers.values()
    np.testing.assert_array_equal(value.const_value.numpy(), [[-128, 0, 508], [-127, -252, -500]])


def test_a_transposed_grid_runs_along_the_axis_that_its_channels_have_then(make_graph) -> None:
    text = "g (float[1, 2] x) => (y) { a = DequantizeLinear <axis = 0> (w, t) b = Transpose (a) y = MatMul (x, b) }"
    model = make_graph(text, {"w": np.ones((3, 2), np.int8), "t": np.array([1, 2, 4], np.float32)})
    infer_shapes(model)
    nodes = {node.op_type: node for node in model.graph}
    assert quantizer_behind(nodes["MatMul"].inputs[1]).axis == 1
    assert read_quantizer(nodes["DequantizeLinear"]).axis == 0
    assert quantizer_behind(nodes["MatMul"].inputs[0]) is None
    source, quantizer = find_pair(nodes["DequantizeLinear"])
    assert source.name == "w"
    assert quantizer.offsets.tolist() == [0, 0, 0], "without a zero point it is 0"


@pytest.mark.parametrize(
    ("body", "opset", "message"),
    [
        ("a = QuantizeLinear (x, s, z) y = Identity (a)", 13, "has no DequantizeLinear behind it"),
        ("a = Cast <to = 2> (x) y = DequantizeLinear (a, s, z)", 13, "which no QuantizeLinear makes"),
        ("a = QuantizeLinear (x, s, z) y = DequantizeLinear (a, s2, z)", 13, "have different factors"),
        ("a = QuantizeLinear (x, s, z) y = DequantizeLinear (a, s, m)", 13, "have different factors"),
        ("t = Abs (s) a = QuantizeLinear (x, t, z) y = DequantizeLinear (a, t, z)", 13, "must be a float32 constant"),
        ("a = QuantizeLinear <output_dtype = 5> (x, s) y = DequantizeLinear (a, s)", 21, "of type int16"),
    ],
)
def test_what_is_no_pair_is_refused_by_its_name(make_graph, body: str, opset: int, message: str) -> None:
    model = network(make_graph, body, opset=opset)
    with pytest.raises(ModelError, match=message) as caught:
        remove_quantizers(model)
    assert caught.value.layer is not None
    assert caught.value.remedy
