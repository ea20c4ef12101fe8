from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.graph import find_layers
from amct_lite.graph.passes.shapes import infer_shapes
from amct_lite.types import Layer, LayerKind

F = np.float32


def _layers(model: ir.Model) -> tuple[Layer, ...]:
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"
    infer_shapes(model)
    return find_layers(model)


def test_convolution_fields(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,8,9,9] x) => (y) { [c] y = Conv<group = 2, dilations = [1,2]>(x, w, b) }",
        {"w": np.ones((6, 4, 3, 2), F), "b": np.ones(6, F)},
    )
    (layer,) = _layers(model)
    assert layer == Layer(
        name="c",
        op_type="Conv",
        kind=LayerKind.CONVOLUTION,
        activation="x",
        activation_index=0,
        channel_axis=1,
        output="y",
        weight="w",
        weight_index=1,
        weight_shape=(6, 4, 3, 2),
        output_channel_axis=0,
        bias="b",
        kernel_shape=(3, 2),
        dilations=(1, 2),
        group=2,
    )
    assert layer.num_weights == 144


def test_deconvolution_fields(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,4,9,9] x) => (y) { y = ConvTranspose<group = 2>(x, w, b) }",
        {"w": np.ones((4, 3, 2, 2), F), "b": np.ones(6, F)},
    )
    (layer,) = _layers(model)
    assert (layer.kind, layer.output_channel_axis, layer.bias) == (LayerKind.DECONVOLUTION, 1, "b")
    assert (layer.kernel_shape, layer.dilations, layer.group) == ((2, 2), (1, 1), 2)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_fields(make_graph: Callable, trans_a: int, trans_b: int) -> None:
    model = make_graph(
        f"g (float[5,5] x) => (y) {{ y = Gemm<transA = {trans_a}, transB = {trans_b}>(x, w, b) }}",
        {"w": np.ones((3, 5) if trans_b else (5, 3), F), "b": np.ones((1, 3), F)},
    )
    (layer,) = _layers(model)
    assert (layer.kind, layer.axis, layer.bias) == (LayerKind.INNER_PRODUCT, 1, "b")
    assert (layer.transpose, layer.output_channel_axis) == (bool(trans_a), 1 - trans_b)
    assert (layer.activation_index, layer.weight_index, layer.channel_axis) == (0, 1, 1 - trans_a)
    assert (layer.kernel_shape, layer.dilations, layer.group) == ((), (), 1)


def test_gemm_with_the_constant_first(make_graph: Callable) -> None:
    model = make_graph("g (float[5,7] x) => (y) { y = Gemm(w, x) }", {"w": np.ones((3, 5), F)})
    (layer,) = _layers(model)
    assert (layer.transpose, layer.output_channel_axis, layer.activation_index) == (True, 0, 1)
    assert (layer.weight_index, layer.channel_axis, layer.blocked) == (0, 0, None)


@pytest.mark.parametrize(("dims", "axis"), [("[5]", 0), ("[N,5]", 1), ("[N,M,5]", 2)])
def test_matmul_with_the_constant_second(make_graph: Callable, dims: str, axis: int) -> None:
    model = make_graph(f"g (float{dims} x) => (y) {{ y = MatMul(x, w) }}", {"w": np.ones((5, 3), F)})
    (layer,) = _layers(model)
    assert (layer.axis, layer.channel_axis, layer.output_channel_axis) == (axis, axis, 1)
    assert (layer.transpose, layer.activation_index, layer.blocked) == (False, 0, None)


def test_matmul_with_the_constant_first(make_graph: Callable) -> None:
    model = make_graph("g (float[N,5,7] x) => (y) { y = MatMul(w, x) }", {"w": np.ones((3, 5), F)})
    (layer,) = _layers(model)
    assert (layer.transpose, layer.activation_index, layer.weight_index) == (True, 1, 0)
    assert (layer.output_channel_axis, layer.channel_axis) == (0, 1)


def test_matmul_of_unknown_rank_has_no_axis(make_graph: Callable) -> None:
    model = make_graph("g (float[N,5] x) => (y) { a = custom.F(x) y = MatMul(a, w) }", {"w": np.ones((5, 3), F)})
    (layer,) = _layers(model)
    assert (layer.axis, layer.channel_axis, layer.blocked) == (None, -1, None)


def test_matmul_of_two_activations_and_global_pools_are_no_layers(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,4,4] x, float[N,2,3,3] z) => (y, p, q) "
        "{ y = MatMul(x, x) p = GlobalAveragePool(z) [pool] q = AveragePool<kernel_shape = [2,3]>(z) }"
    )
    (layer,) = _layers(model)
    assert (layer.name, layer.kind, layer.kernel_shape) == ("pool", LayerKind.AVERAGE_POOL, (2, 3))
    assert (layer.weight, layer.num_weights, layer.blocked) == (None, 0, None)


def test_layers_in_bodies_are_not_listed(make_graph: Callable) -> None:
    model = make_graph(
        """g (bool c, float[1,4] x) => (float[1,4] y) {
        y = If(c) <then_branch = t () => (float[1,4] o) { o = MatMul(x, w) },
                   else_branch = e () => (float[1,4] o) { o = Neg(x) }> }""",
        {"w": np.ones((4, 4), F)},
    )
    assert _layers(model) == ()


def test_tied_layers_know_each_other(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,4] x) => (y) { [a] p = MatMul(x, w) [b] q = Gemm(p, w) [c] y = MatMul(q, v) }",
        {"w": np.ones((4, 4), F), "v": np.ones((4, 4), F)},
    )
    first, second, third = _layers(model)
    assert (first.tied_with, second.tied_with, third.tied_with) == (("b",), ("a",), ())
    assert first.blocked is second.blocked is None


W2, W4 = np.ones((4, 4), F), np.ones((4, 4, 1, 1), F)
BLOCKED = [
    ("g (float[N,4] x, float[4,4] w) => (y) { y = Gemm(x, w) }", {}, "not constant"),
    ("g (float[N,4] x, float[4,4] w) => (y) { y = MatMul(x, w) }", {"w": W2}, "may override"),
    (
        "g (float[N,4,1,1] x) => (y) { v = Relu(w) y = Conv(x, v) }",
        {"w": W4},
        "computed from other constants",
    ),
    ("g (float[N,4,4] x) => (y) { y = MatMul(x, w) }", {"w": np.ones((2, 4, 4), F)}, "rank 3"),
    ("g (float[N,4] x) => (y) { y = MatMul(x, w) }", {"w": np.ones(4, F)}, "rank 1"),
    ("g (float16[N,4] x) => (y) { y = MatMul(x, w) }", {"w": W2.astype(np.float16)}, "float16"),
    ("g (double[N,4] x) => (y) { y = Gemm(x, w) }", {"w": W2.astype(np.float64)}, "double"),
    ("g (double[N,4,2,2] x) => (y) { y = AveragePool<kernel_shape = [2,2]>(x) }", {}, "double"),
    ("g (float[N,4] x, int64[2] i) => (y, z) { y = MatMul(x, w) z = Gather(w, i) }", {"w": W2}, "Gather"),
    ("g (float[N,4] x) => (y, w) { y = MatMul(x, w) }", {"w": W2}, "also an output"),
    (
        "g (float[1,4] x, bool c) => (y, z) { y = MatMul(x, w) z = If(c) "
        "<then_branch = t () => (o) {o = Neg(w)}, else_branch = e () => (o) {o = Abs(x)}> }",
        {"w": W2},
        "subgraph",
    ),
    (
        "g (float[N,4] x) => (y) { a = Gemm(x, w) y = Gemm<transB = 1>(a, w) }",
        {"w": W2},
        "output channels on another axis",
    ),
    ("g (float[N,0] x) => (y) { y = MatMul(x, w) }", {"w": np.ones((0, 4), F)}, "empty"),
    ("g (float[N,4] x) => (y) { y = MatMul(x, w) }", {"w": W2 * np.nan}, "NaN"),
    (
        "g (float[N,4] x) => (y) { y = MatMul(x, w) }",
        {"w": np.where(np.eye(4) > 0, np.inf, 1).astype(F)},
        "infinity",
    ),
    (
        "g (float[N,4] x) => (y) { w = DequantizeLinear(q, s) y = MatMul(x, w) }",
        {"q": np.ones((4, 4), np.int8), "s": F(1)},
        "already quantized",
    ),
    (
        "g (float[N,4] x) => (y) { u = QuantizeLinear(x, s) v = DequantizeLinear(u, s) y = MatMul(v, w) }",
        {"w": W2, "s": F(1)},
        "already quantized",
    ),
    ("g (float[N,4] x) => (y) { a = Gemm<alpha = 2.0>(x, w) y = Gemm(a, w) }", {"w": W2}, "alpha is 2"),
]


@pytest.mark.parametrize(("text", "weights", "reason"), BLOCKED)
def test_layer_that_cannot_be_quantized_is_listed_with_the_reason(
    make_graph: Callable, text: str, weights: dict[str, np.ndarray], reason: str
) -> None:
    layers = _layers(make_graph(text, weights))
    assert layers
    assert layers[0].blocked is not None
    assert reason in layers[0].blocked
    assert layers[0].blocked.endswith(".")


def test_partner_of_a_blocked_layer_is_blocked(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,4] x) => (y) { [a] p = MatMul(x, w) u = QuantizeLinear(p, s) v = DequantizeLinear(u, s) "
        "[b] y = MatMul(v, w) }",
        {"w": W2, "s": F(1)},
    )
    first, second = _layers(model)
    assert second.blocked is not None and first.blocked is not None
    assert "shares its weight with layer 'b'" in first.blocked


@pytest.mark.parametrize(
    "bias", [np.ones((), F), np.ones((5, 3), F), np.ones(3, np.float64), np.ones((5, 1), F), np.ones(1, F)]
)
def test_only_a_float32_vector_is_a_bias(make_graph: Callable, bias: np.ndarray) -> None:
    model = make_graph("g (float[5,4] x) => (y) { y = Gemm(x, w, b) }", {"w": np.ones((4, 3), F), "b": bias})
    assert _layers(model)[0].bias is None
