"""What exporters write: each idiom goes through the whole pipeline, and stays near float with its interface."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest

TARGETS = ["onnxruntime", "ascend"]


def normal(rng: np.random.Generator, *shape: int, gain: float = 1.0) -> np.ndarray:
    return (gain * rng.normal(size=shape)).astype(np.float32)


def he(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return normal(rng, *shape, gain=float(np.sqrt(2 / np.prod(shape[1:]))))


def images(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(rng, *shape)} for shape in shapes]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_as_constant_nodes_of_unnamed_operators(near_float: Callable, rng, tmp_path, target: str) -> None:
    tensors = {"w": he(rng, 32, 3, 3, 3), "v": he(rng, 4, 32, 1, 1)}
    constants = [
        onnx.NodeProto(
            op_type="Constant",
            output=[name],
            attribute=[
                onnx.AttributeProto(
                    name="value", type=onnx.AttributeProto.TENSOR, t=onnx.numpy_helper.from_array(values)
                )
            ],
        )
        for name, values in tensors.items()
    ]
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[N,3,H,W] x) => (float[N,4,OH,OW] y) '
        "{ a = Conv(x, w) b = Relu(a) y = Conv(b, v) }"
    )
    nodes = [*constants, *model.graph.node]
    for node in nodes:
        node.name = ""
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    # Other sizes in every batch, as the dynamic shapes allow.
    outcome = near_float(path, images(rng, (2, 3, 9, 9), (1, 3, 16, 7), (3, 3, 12, 12)), target=target)
    assert not outcome.reasons


@pytest.mark.parametrize("target", TARGETS)
def test_integer_inputs_embedding_matmul_and_a_layer_norm_of_primitive_operators(
    near_float: Callable, write_network: Callable, rng, target: str
) -> None:
    path = write_network(
        """g (int32[N,6] tokens, float[N,6,1] mask) => (float[N,6,32] y) {
        e = Gather(table, tokens) a = Mul(e, mask) h = MatMul(a, w) hb = Add(h, b)
        mean = ReduceMean<axes = [-1]>(hb) d = Sub(hb, mean) s = Pow(d, two) var = ReduceMean<axes = [-1]>(s)
        veps = Add(var, eps) std = Sqrt(veps) n = Div(d, std) scaled = Mul(n, gain) shifted = Add(scaled, shift)
        g1 = MatMul(shifted, v) g2 = Relu(g1) y = MatMul(g2, u) }""",
        {
            "table": normal(rng, 50, 16),
            "w": normal(rng, 16, 16, gain=0.25),
            "b": normal(rng, 16),
            "two": np.float32(2),
            "eps": np.float32(1e-5),
            "gain": normal(rng, 16) + 1,
            "shift": normal(rng, 16),
            "v": normal(rng, 16, 64, gain=0.25),
            "u": normal(rng, 64, 32, gain=0.125),
        },
    )
    feeds = [
        {"tokens": rng.integers(0, 50, (n, 6), dtype=np.int32), "mask": np.ones((n, 6, 1), np.float32)}
        for n in (16, 8, 4)
    ]
    assert not near_float(path, feeds, target=target).reasons


@pytest.mark.parametrize("target", TARGETS)
def test_batch_norm_behind_relu(near_float: Callable, write_network: Callable, rng, target: str) -> None:
    path = write_network(
        """g (float[N,3,12,12] x) => (float[N,10] y) { a = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(a)
        n = BatchNormalization(r, scale, shift, mean, var) c = Conv<pads = [1,1,1,1]>(n, v)
        p = GlobalAveragePool(c) f = Flatten(p) y = Gemm<transB = 1>(f, u) }""",
        {
            "w": he(rng, 16, 3, 3, 3),
            "b": normal(rng, 16, gain=0.1),
            "scale": rng.uniform(0.5, 2, 16).astype(np.float32),
            "shift": normal(rng, 16),
            "mean": rng.uniform(0, 1, 16).astype(np.float32),
            "var": rng.uniform(0.5, 2, 16).astype(np.float32),
            "v": he(rng, 8, 16, 3, 3),
            "u": he(rng, 10, 8),
        },
    )
    near_float(path, images(rng, (8, 3, 12, 12), (4, 3, 12, 12)), target=target)


@pytest.mark.parametrize("target", TARGETS)
def test_tied_weights_are_stored_once(near_float: Callable, write_network: Callable, rng, target: str) -> None:
    # ONNX Runtime 1.32 cannot widen a weight's bytes twice: it refuses shared weights under session.x64quantprecision.
    options = onnxruntime.SessionOptions()
    path = write_network(
        """g (float[N,8,6,6] x) => (float[N,8,6,6] y) { a = Conv<pads = [1,1,1,1]>(x, w) r = Relu(a)
        b = Conv<pads = [1,1,1,1]>(r, w) s = Relu(b) y = Conv<pads = [1,1,1,1]>(s, w) }""",
        {"w": he(rng, 8, 8, 3, 3)},
    )
    outcome = near_float(path, images(rng, (8, 8, 6, 6), (4, 8, 6, 6)), target=target, sess_options=options)
    for form in ("fake_quant_model", "deploy_model"):
        initializers = outcome.model(form).graph.initializers.values()
        assert sum(tuple(value.shape.numpy()) == (8, 8, 3, 3) for value in initializers) == 1


@pytest.mark.parametrize("target", TARGETS)
def test_if_bodies_that_read_outer_tensors(near_float: Callable, write_network: Callable, rng, target: str) -> None:
    path = write_network(
        """g (float[N,3,8,8] x, bool wide) => (float[N,8,8,8] y) { a = Conv<pads = [1,1,1,1]>(x, w) r = Relu(a)
        c = If(wide) <then_branch = t () => (o1) { o1 = Conv<pads = [1,1,1,1]>(r, v) },
                      else_branch = e () => (o2) { z = Add(r, r) o2 = Conv<pads = [1,1,1,1]>(z, w2) }>
        y = Conv<pads = [1,1,1,1]>(c, u) }""",
        {"w": he(rng, 8, 3, 3, 3), "v": he(rng, 8, 8, 3, 3), "w2": he(rng, 8, 8, 3, 3), "u": he(rng, 8, 8, 3, 3)},
    )
    for wide in (True, False):
        feeds = [{"x": normal(rng, 4, 3, 8, 8), "wide": np.array(flag)} for flag in (True, False, wide)]
        near_float(path, feeds, target=target)


@pytest.mark.parametrize("target", TARGETS)
def test_tensors_of_size_zero(near_float: Callable, write_network: Callable, rng, target: str) -> None:
    """Empty constants in the graph, and a batch in which no box was found."""
    path = write_network(
        """g (float[N,8] x) => (float[N,4] y, float[M,8] boxes) { boxes = Concat<axis = 0>(x, none)
        a = Gemm<transB = 1>(x, w) r = Relu(a) y = Gemm<transB = 1>(r, v) }""",
        {"none": np.zeros((0, 8), np.float32), "w": he(rng, 64, 8), "v": he(rng, 4, 64)},
    )
    outcome = near_float(path, images(rng, (32, 8), (0, 8), (16, 8)), target=target)
    assert not outcome.reasons
    near_float(path, images(rng, (32, 8), (0, 8)), target=target)


@pytest.mark.parametrize("target", TARGETS)
def test_several_inputs_and_outputs_of_several_types(
    near_float: Callable, write_network: Callable, rng, target: str
) -> None:
    path = write_network(
        """g (float[N,3,8,8] image, float[N,5] metadata, int64[1] offset)
        => (float[N,6] scores, int64[N] best, float[N,32,8,8] features) {
        features = Conv<pads = [1,1,1,1]>(image, w) p = GlobalAveragePool(features) f = Flatten(p)
        m = Gemm<transB = 1>(metadata, u) c = Concat<axis = 1>(f, m) scores = Gemm<transB = 1>(c, v)
        top = ArgMax<axis = 1, keepdims = 0>(scores) best = Add(top, offset) }""",
        {"w": he(rng, 32, 3, 3, 3), "u": he(rng, 8, 5), "v": he(rng, 6, 40)},
    )
    feeds = [
        {"image": normal(rng, 6, 3, 8, 8), "metadata": normal(rng, 6, 5), "offset": np.array([3], np.int64)}
        for _ in range(3)
    ]
    near_float(path, feeds, target=target, least=0.98)


def test_layers_that_a_body_alone_has_stay_float(near_float: Callable, write_network: Callable, rng) -> None:
    """A Loop's body runs many times on its own tensors: it is left as it is."""
    path = write_network(
        """g (float[N,24] x, int64 count) => (float[N,24] y) { a = Gemm<transB = 1>(x, w)
        b = Loop(count, , a) <body = step (int64 i, bool go, float[N,24] s) => (bool more, float[N,24] t)
            { more = Identity(go) m = Gemm<transB = 1>(s, v) t = Tanh(m) }>
        y = Gemm<transB = 1>(b, u) }""",
        {"w": he(rng, 24, 24), "v": he(rng, 24, 24), "u": he(rng, 24, 24)},
    )
    feeds = [{"x": normal(rng, n, 24), "count": np.array(3, np.int64)} for n in (32, 16)]
    outcome = near_float(path, feeds)
    body = next(node for node in outcome.model("deploy_model").graph if node.op_type == "Loop").attributes["body"]
    assert [node.op_type for node in body.as_graph()] == ["Identity", "Gemm", "Tanh"]
