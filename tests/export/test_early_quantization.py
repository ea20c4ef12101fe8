"""Moving quantizers up: more integer kernels, the same numbers."""

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.export.early_quantization import quantize_early
from amct_lite.export.editor import GraphEditor
from amct_lite.graph.model import load_model
from amct_lite.graph.saving import save_ir

HEADER = '<ir_version: 8, opset_import: ["": 13]> g '
GRIDS = "float s = {0.1}, uint8 z = {3}, float s2 = {0.2}, uint8 z2 = {3}"


def pushed(tmp_path, text):
    file = tmp_path / "net.onnx"
    save_ir(ir.from_onnx_text(HEADER + text), file)
    model = load_model(file)
    editor = GraphEditor(model)
    quantize_early(editor)
    out = tmp_path / "pushed.onnx"
    save_ir(editor.ir, out)
    return file, out, [node.op_type for node in editor.graph]


@pytest.mark.parametrize(
    "operator",
    [
        "MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
        "MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
        "Concat <axis = 1> (x, x)",
        "Transpose <perm = [0, 2, 3, 1]> (x)",
        "Flatten (x)",
        "Pad (x, pads)",
        'Pad <mode = "reflect"> (x, pads)',
        "Reshape (x, shape)",
    ],
)
def test_operators_that_move_values_commute_exactly(tmp_path, operator, run_network):
    text = f"""(float[2, 4, 6, 6] x) => (float[N] y) <{GRIDS}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}},
        int64[2] shape = {{2, -1}}> {{ t = {operator} q = QuantizeLinear (t, s, z) y = DequantizeLinear (q, s, z) }}"""
    before, after, operators = pushed(tmp_path, text)
    assert operators.count("QuantizeLinear") == 2
    assert operators.index("QuantizeLinear") < operators.index(operator.split()[0])
    x = np.random.default_rng(0).normal(0, 6, (2, 4, 6, 6)).astype(np.float32)
    for level in ("DISABLE", "ALL"):
        assert np.array_equal(run_network(before, {"x": x}, level)["y"], run_network(after, {"x": x}, level)["y"])


@pytest.mark.parametrize(
    "body",
    [
        "t = AveragePool <kernel_shape = [2, 2]> (x) q = QuantizeLinear (t, s, z) y = DequantizeLinear (q, s, z)",
        "t = Pad (x, pads, half) q = QuantizeLinear (t, s, z) y = DequantizeLinear (q, s, z)",
        # Another operator needs the values as they are, or another grid.
        "t = Flatten (x) u = Relu (t) q = QuantizeLinear (t, s, z) d = DequantizeLinear (q, s, z) y = Add (d, u)",
        """t = Flatten (x) q = QuantizeLinear (t, s, z) d = DequantizeLinear (q, s, z)
           q2 = QuantizeLinear (t, s2, z2) d2 = DequantizeLinear (q2, s2, z2) y = Add (d, d2)""",
    ],
)
def test_nothing_moves_where_numbers_would_change(tmp_path, body):
    text = f"""(float[2, 4, 6, 6] x) => (float[N] y)
        <{GRIDS}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, float half = {{0.5}}> {{ {body} }}"""
    before, _, operators = pushed(tmp_path, text)
    assert operators == [node.op_type for node in load_model(before).ir.graph]


def test_a_chain_is_passed_to_its_end_and_a_graph_output_is_not(tmp_path):
    text = f"""(float[2, 4, 6, 6] x) => (float[N] y, float[N] c, float[N] d2) <{GRIDS}> {{
        a = MaxPool <kernel_shape = [2, 2]> (x) b = Transpose <perm = [0, 2, 3, 1]> (a)
        q = QuantizeLinear (b, s, z) y = DequantizeLinear (q, s, z)
        c = Flatten (x) q2 = QuantizeLinear (c, s, z) d2 = DequantizeLinear (q2, s, z) }}"""
    _, _, operators = pushed(tmp_path, text)
    chain = operators[: operators.index("Transpose") + 1]
    assert chain.count("QuantizeLinear") == 2
    assert chain.index("QuantizeLinear") < chain.index("MaxPool")
    assert operators.count("QuantizeLinear") == 4


def test_two_readers_of_one_source_keep_the_graph_in_order(tmp_path):
    text = f"""(float[2, 4, 6, 6] x) => (float[N] y, float[N] z) <{GRIDS}> {{ r = Relu (x)
        a = Flatten (r) q = QuantizeLinear (a, s, z) y = DequantizeLinear (q, s, z)
        b = Flatten (r) q2 = QuantizeLinear (b, s, z) z1 = DequantizeLinear (q2, s, z) z = Neg (z1) }}"""
    _, _, operators = pushed(tmp_path, text.replace("float[N] z)", "float[N] w)").replace("z = Neg", "w = Neg"))
    assert operators.count("QuantizeLinear") == 3, "one early pair serves both"
