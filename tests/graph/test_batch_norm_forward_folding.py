"""BatchNormalization in front of a layer folds into it, exactly, and only where padding cannot see the difference."""

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.graph.model import load_model
from amct_lite.graph.saving import save_ir

NORM = """<float[4] g = {1, -2, 0.5, 3}, float[4] b = {0.1, 0.2, -0.3, 1}, float[4] m = {1, 0, -1, 2},
          float[4] v = {1, 4, 0.25, 9}"""


def write(tmp_path, body, inputs="float[2, 4, 5, 5] x", output="float[N] y", arrays=()):
    text = f'<ir_version: 8, opset_import: ["": 13]> net ({inputs}) => ({output}) {NORM}> {{ {body} }}'
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(0)
    for name, shape in arrays:
        array = rng.normal(size=shape).astype(np.float32)
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.register_initializer(value)
    file = tmp_path / "net.onnx"
    save_ir(model, file)
    return file


CASES = {
    "conv": ("n = BatchNormalization (x, g, b, m, v) y = Conv (n, w, c)", [("w", (6, 4, 3, 3)), ("c", (6,))]),
    "conv without bias": ("n = BatchNormalization (x, g, b, m, v) y = Conv (n, w)", [("w", (6, 4, 1, 1))]),
    "grouped": ("n = BatchNormalization (x, g, b, m, v) y = Conv <group = 2> (n, w)", [("w", (6, 2, 3, 3))]),
    "depthwise": ("n = BatchNormalization (x, g, b, m, v) y = Conv <group = 4> (n, w)", [("w", (8, 1, 3, 3))]),
    "two norms": (
        "o = BatchNormalization (x, g, b, m, v) n = BatchNormalization (o, g, b, m, v) y = Conv (n, w)",
        [("w", (6, 4, 3, 3))],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_norm_in_front_of_an_unpadded_convolution_disappears(tmp_path, name, run_network):
    body, arrays = CASES[name]
    file = write(tmp_path, body, arrays=arrays)
    model = load_model(file)
    assert [node.op_type for node in model.ir.graph] == ["Conv"]
    model.save(tmp_path / "folded.onnx")
    x = np.random.default_rng(1).normal(size=(2, 4, 5, 5)).astype(np.float32)
    expected = run_network(file, {"x": x})["y"]
    np.testing.assert_allclose(run_network(tmp_path / "folded.onnx", {"x": x})["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trans_b", [0, 1])
def test_a_norm_in_front_of_an_inner_product_disappears(tmp_path, trans_b, run_network):
    body = f"n = BatchNormalization (x, g, b, m, v) y = Gemm <transB = {trans_b}> (n, w, c)"
    shape = (3, 4) if trans_b else (4, 3)
    file = write(tmp_path, body, inputs="float[2, 4] x", arrays=[("w", shape), ("c", (3,))])
    model = load_model(file)
    assert [node.op_type for node in model.ir.graph] == ["Gemm"]
    model.save(tmp_path / "folded.onnx")
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    expected = run_network(file, {"x": x})["y"]
    np.testing.assert_allclose(run_network(tmp_path / "folded.onnx", {"x": x})["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "body",
    [
        "n = BatchNormalization (x, g, b, m, v) y = Conv <pads = [1, 1, 1, 1]> (n, w)",
        'n = BatchNormalization (x, g, b, m, v) y = Conv <auto_pad = "SAME_UPPER"> (n, w)',
        "n = BatchNormalization (x, g, b, m, v) c = Conv (n, w) s = ReduceMean <keepdims = 0> (n) y = Add (c, s)",
    ],
)
def test_it_stays_where_padding_or_another_reader_sees_it(tmp_path, body):
    model = load_model(write(tmp_path, body, arrays=[("w", (6, 4, 3, 3))]))
    assert "BatchNormalization" in [node.op_type for node in model.ir.graph]


def test_a_layer_that_is_to_be_skipped_keeps_its_norm(tmp_path):
    body, arrays = CASES["conv"]
    file = write(tmp_path, body.replace("y = Conv", "[conv] y = Conv"), arrays=arrays)
    model = load_model(file, skip_fusion_layers=["conv"])
    assert [node.op_type for node in model.ir.graph] == ["BatchNormalization", "Conv"]
