from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.graph.passes.constant_folding import fold_constants
from amct_lite.graph.passes.constant_nodes import lift_constants
from amct_lite.graph.passes.shapes import infer_shapes


def _folded(model: ir.Model) -> list[str]:
    lift_constants(model)
    infer_shapes(model)
    fold_constants(model)
    return [node.op_type for node in model.graph]


def test_pad_chain_of_an_exporter_becomes_one_constant(make_graph: Callable) -> None:
    model = make_graph(
        """g (float[N,3,4,4] x) => (y) {
        two = Constant<value = int64[1] {2}>() rest = ConstantOfShape<value = int64[1] {0}>(two)
        given = Constant<value = int64[6] {0,1,0,1,0,0}>() all = Concat<axis = 0>(given, rest)
        shape = Constant<value = int64[2] {-1,2}>() table = Reshape(all, shape)
        a = Constant<value = int64[1] {-1}>() b = Constant<value = int64[1] {-9223372036854775807}>()
        zero = Constant<value = int64[1] {0}>() s = Slice(table, a, b, zero, a) t = Transpose<perm = [1,0]>(s)
        flat = Reshape(t, a) pads = Cast<to = 7>(flat) y = Pad(x, pads) }"""
    )
    assert _folded(model) == ["Pad"]
    assert list(model.graph.initializers) == ["pads"]
    pads = model.graph.initializers["pads"].const_value.numpy()
    np.testing.assert_array_equal(pads, [0, 0, 0, 0, 0, 0, 1, 1])


def test_shape_of_a_static_tensor_folds_and_of_a_dynamic_one_stays(make_graph: Callable) -> None:
    text = "a = Relu(x) n = Shape(a) m = Mul(n, two) y = Reshape(z, m) }"
    weights = {"two": np.array([1, 1], np.int64)}
    static = make_graph("g (float[2,3] x, float[3,2] z) => (y) { " + text, weights)
    assert _folded(static) == ["Reshape"]
    dynamic = make_graph("g (float[N,3] x, float[3,N] z) => (y) { " + text, weights)
    assert _folded(dynamic) == ["Relu", "Shape", "Mul", "Reshape"]


def test_slice_of_a_shape_and_size_fold(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[2,3,4] x) => (p, q) { n = Shape<start = -2, end = 3>(x) k = Size(x) p = Neg(n) q = Neg(k) }",
        opset=15,
    )
    # p and q are outputs of the graph and so stay operators.
    assert _folded(model) == ["Neg", "Neg"]
    assert model.graph[0].inputs[0].const_value.numpy().tolist() == [3, 4]
    assert model.graph[1].inputs[0].const_value.numpy().tolist() == 24


def test_big_weight_folds_where_the_original_disappears(make_graph: Callable, rng: np.random.Generator) -> None:
    weight = rng.normal(size=(64, 32)).astype(np.float32)
    model = make_graph(
        "g (float[N,64] x) => (y) { t = Transpose<perm = [1,0]>(w) u = Mul(t, s) y = Gemm<transB = 1>(x, u) }",
        {"w": weight, "s": np.float32(2)},
    )
    assert _folded(model) == ["Gemm"]
    np.testing.assert_array_equal(model.graph.initializers["u"].const_value.numpy(), 2 * weight.T)


def test_shared_big_weight_is_not_doubled(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,64] x, int64[2] i) => (y, e) { t = Transpose<perm = [1,0]>(w) y = MatMul(x, t) e = Gather(w, i) }",
        {"w": np.ones((500, 64), np.float32)},
    )
    assert _folded(model) == ["Transpose", "MatMul", "Gather"]


def test_small_constants_do_not_blow_up(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[1000] x) => (y) { z = ConstantOfShape(n) y = Add(x, z) }", {"n": np.array([1000], np.int64)}
    )
    assert _folded(model) == ["ConstantOfShape", "Add"]


def test_identity_of_a_weight_is_the_weight(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,64] x) => (y) { v = Identity(w) a = MatMul(x, w) y = MatMul(a, v) }",
        {"w": np.ones((64, 64), np.float32)},
    )
    assert _folded(model) == ["MatMul", "MatMul"]
    assert list(model.graph.initializers) == ["w"]


@pytest.mark.parametrize(
    "chain",
    [
        "w = DequantizeLinear(q, s)",
        "q8 = QuantizeLinear(f, s) w = DequantizeLinear(q8, s)",
        "k = Cast<to = 7>(q) w = Gather(table, k)",
        "w = RandomNormalLike(f)",
        "w = custom.Decode(f)",
    ],
)
def test_quantized_packed_random_and_custom_stay(make_graph: Callable, chain: str) -> None:
    weights = {
        "q": np.zeros((4, 4), np.uint8),
        "s": np.float32(0.1),
        "f": np.ones((4, 4), np.float32),
        "table": np.arange(256, dtype=np.float32),
    }
    used = {k: array for k, array in weights.items() if f"({k})" in chain or f"({k}," in chain or f", {k})" in chain}
    model = make_graph(f"g (float[N,4] x) => (y) {{ {chain} y = MatMul(x, w) }}", used)
    before = [node.op_type for node in model.graph]
    assert _folded(model) == before


def test_overridable_initializer_is_no_constant(make_graph: Callable) -> None:
    model = make_graph("g (float[2] x, float[2] w) => (y) { v = Neg(w) y = Add(x, v) }", {"w": np.ones(2, np.float32)})
    assert _folded(model) == ["Neg", "Add"]


def test_constant_captured_by_a_body_keeps_working(make_graph: Callable) -> None:
    model = make_graph(
        """g (bool c) => (float[2] y) { v = Neg(w)
        y = If(c) <then_branch = t () => (float[2] o) { o = Abs(v) },
                   else_branch = e () => (float[2] o) { o = Neg(v) }> }""",
        {"w": np.ones(2, np.float32)},
    )
    assert _folded(model) == ["If"]
    assert model.graph.initializers["v"].const_value.numpy().tolist() == [-1, -1]
    assert {node.inputs[0].name for node in model.graph.all_nodes() if node.op_type != "If"} == {"v"}


def test_operator_without_a_kernel_leaves_the_model_as_it_was(
    make_graph: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_graph("g (float[2] x) => (y) { v = Relu(w) y = Add(x, v) }", {"w": np.ones(2, np.float32)}, opset=99)
    assert _folded(model) == ["Relu", "Add"]
    assert "cannot be folded" in caplog.text
