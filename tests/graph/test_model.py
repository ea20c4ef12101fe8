from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amct_lite.errors import ModelError
from amct_lite.graph import load_model, save_ir

ZOO = Path(__file__).resolve().parents[3] / "shared" / "models"
NAMES = ["ccexam_mnist", "cifar10_model", "efficientnet_lite0", "squeezenet1.1/squeezenet1.1"]


@pytest.mark.parametrize("name", NAMES)
def test_real_model_gives_the_same_outputs(
    name: str, tmp_path: Path, assert_same: Callable, rng: np.random.Generator
) -> None:
    path = ZOO / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    model = load_model(path)
    model.save(tmp_path / "out.onnx")
    (value,) = model.ir.graph.inputs
    dims = [dim if isinstance(dim, int) else 2 for dim in value.shape]
    assert_same(path, tmp_path / "out.onnx", {value.name: rng.normal(size=dims).astype(np.float32)})
    assert model.layers
    assert all(layer.blocked is None for layer in model.layers)


def test_efficientnet_pads_and_their_chains_are_gone() -> None:
    path = ZOO / "efficientnet_lite0.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    graph = load_model(path).ir.graph
    assert not {"Pad", "Constant", "ConstantOfShape", "Slice", "Transpose", "Cast"} & {node.op_type for node in graph}
    assert len(graph.initializers) < 180


def test_lookups(make_file: Callable) -> None:
    path = make_file("g (float[N,2] x) => (y) { [fc] y = Gemm(x, w) }", {"w": np.eye(2, dtype=np.float32)})
    model = load_model(str(path))
    assert model.path == path
    assert model.layer("fc") is model.layers[0]
    weight = model.weight("w")
    np.testing.assert_array_equal(weight, np.eye(2))
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 5
    with pytest.raises(ModelError, match=r"no layer 'nope'.*'fc'"):
        model.layer("nope")
    with pytest.raises(ModelError, match="no initializer 'nope'"):
        model.weight("nope")


def test_clone_shares_tensors_and_nothing_else(make_file: Callable) -> None:
    path = make_file("g (float[N,2] x) => (y) { [fc] y = Gemm(x, w) }", {"w": np.eye(2, dtype=np.float32)})
    model = load_model(path)
    clone = model.clone()
    assert clone.graph.initializers["w"].const_value is model.ir.graph.initializers["w"].const_value
    clone.graph.outputs[0].dtype = ir.DataType.FLOAT16
    clone.graph.inputs[0].shape = ir.Shape([1, 2])
    clone.graph.initializers["w"].const_value = None
    clone.graph.remove(clone.graph[0])
    assert model.ir.graph.outputs[0].dtype == ir.DataType.FLOAT
    assert str(model.ir.graph.inputs[0].shape) == "[N,2]"
    assert model.weight("w").shape == (2, 2)
    assert len(model.ir.graph) == 1


def test_unnamed_and_double_nodes_get_names(make_file: Callable) -> None:
    path = make_file("g (float[1] x) => (y) { a = Relu(x) b = Neg(a) c = Abs(b) y = Exp(c) }")
    model = ir.load(path)
    for node, name in zip(model.graph, ["", "n", "n", ""], strict=True):
        node.name = name
    ir.save(model, path)
    assert [node.name for node in load_model(path).ir.graph] == ["Relu_0", "n", "n_1", "Exp_3"]


def test_constant_node_weights_are_layers_weights(make_file: Callable) -> None:
    path = make_file("g (float[N,2] x) => (y) { w = Constant<value = float[2,2] {1, 2, 3, 4}>() y = Gemm(x, w) }")
    model = load_model(path)
    assert model.layers[0].weight == "w"
    assert model.weight("w").tolist() == [[1, 2], [3, 4]]


def test_operators_in_any_order_are_sorted(make_graph: Callable, tmp_path: Path) -> None:
    path = tmp_path / "unsorted.onnx"
    ir.save(make_graph("g (float[1] x) => (y) { b = Neg(a) a = Relu(x) y = Exp(b) }"), path)
    assert [node.op_type for node in load_model(path).ir.graph] == ["Relu", "Neg", "Exp"]


def test_if_body_and_loop_with_captured_values_survive(
    make_file: Callable, assert_same: Callable, rng: np.random.Generator
) -> None:
    path = make_file(
        """g (float[2,2] x, bool c, int64 n) => (float[2,2] y, float[2,2] z) {
        h = MatMul(x, w) k = Neg(v) go = Constant<value = bool {1}>()
        y = If(c) <then_branch = t () => (float[2,2] o) { one = Constant<value = float {1}>() p = Add(h, one)
                     o = Add(p, k) },
                   else_branch = e () => (float[2,2] o) { o = MatMul(h, u) }>
        z = Loop(n, go, h) <body = b (int64 i, bool g, float[2,2] s) => (bool g2, float[2,2] s2) {
                     g2 = Identity(g) s2 = Add(s, k) }> }""",
        {name: rng.normal(size=(2, 2)).astype(np.float32) for name in "wvu"},
    )
    model = load_model(path)
    model.save(path.with_name("out.onnx"))
    for flag in (True, False):
        feeds = {"x": rng.normal(size=(2, 2)).astype(np.float32), "c": np.array(flag), "n": np.array(3)}
        assert_same(path, path.with_name("out.onnx"), feeds)
    inner = [node.op_type for node in model.ir.graph.all_nodes() if node.graph is not model.ir.graph]
    assert inner == ["Constant", "Add", "Add", "MatMul", "Identity", "Add"]
    assert [layer.blocked for layer in model.layers] == [None]


def test_inputs_and_outputs_keep_names_types_and_shapes(make_file: Callable, rng: np.random.Generator) -> None:
    path = make_file(
        "g (float[batch,3,h,w] image, float[2] unused) => (float[batch,4,p,q] feature, float[2] same) "
        "{ feature = Conv(image, k) same = Identity(unused) }",
        {"k": rng.normal(size=(4, 3, 3, 3)).astype(np.float32)},
        opset=11,
    )
    model = load_model(path)
    model.save(path.with_name("out.onnx"))
    for graph in (model.ir.graph, ir.load(path.with_name("out.onnx")).graph):
        described = [(v.name, str(v.dtype), str(v.shape)) for v in (*graph.inputs, *graph.outputs)]
        assert described == [
            ("image", "FLOAT", "[batch,3,h,w]"),
            ("unused", "FLOAT", "[2]"),
            ("feature", "FLOAT", "[batch,4,p,q]"),
            ("same", "FLOAT", "[2]"),
        ]


def test_sorted_operators_keep_their_order(make_file: Callable) -> None:
    path = make_file("g (float[1] x) => (y) { a = Neg(x) b = Relu(x) c = Exp(a) d = Add(c, b) y = Abs(d) }")
    assert [node.op_type for node in load_model(path).ir.graph] == ["Neg", "Relu", "Exp", "Add", "Abs"]


STEPS = st.lists(st.sampled_from(["conv", "norm", "relu", "depthwise", "add", "pool", "scale"]), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.integers(0, 2**16), opset=st.sampled_from([9, 11, 13, 17]), tied=st.booleans())
def test_random_networks_survive_loading_and_saving(
    tmp_path: Path,
    make_graph: Callable,
    assert_same: Callable,
    steps: list[str],
    seed: int,
    opset: int,
    tied: bool,
) -> None:
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    lines, last = [], "x"

    def constant(name: str, *shape: int, low: float | None = None) -> str:
        array = rng.normal(size=shape) if low is None else rng.uniform(low, 2, size=shape)
        weights[name] = array.astype(np.float32)
        return name

    shared = "w_shared" if tied else None
    for i, step in enumerate(steps):
        new = f"t{i}"
        if step == "conv":
            w = shared or f"w{i}"
            if w not in weights:
                constant(w, 4, 4, 3, 3)
            lines.append(f"{new} = Conv<pads = [1,1,1,1]>({last}, {w})")
        elif step == "depthwise":
            lines.append(f"{new} = Conv<group = 4>({last}, {constant(f'w{i}', 4, 1, 1, 1)}, {constant(f'b{i}', 4)})")
        elif step == "norm":
            args = [constant(f"{p}{i}", 4) for p in ("g", "h", "m")] + [constant(f"v{i}", 4, low=0.5)]
            lines.append(f"{new} = BatchNormalization({last}, {', '.join(args)})")
        elif step == "scale":
            lines.append(f"k{i} = Neg({constant(f's{i}', 4, 1, 1)}) {new} = Mul({last}, k{i})")
        else:
            call = {"relu": f"Relu({last})", "add": f"Add({last}, x)"}.get(
                step, f"AveragePool<kernel_shape = [3,3], pads = [1,1,1,1]>({last})"
            )
            lines.append(f"{new} = {call}")
        last = new
    lines.append(f"f = Flatten({last}) y = Gemm<alpha = 0.5>(f, {constant('fc', 100, 3)}, {constant('fb', 3)})")
    text = f"g (float[N,4,5,5] x) => (float[N,3] y) {{ {' '.join(lines)} }}"
    save_ir(make_graph(text, weights, opset=opset), tmp_path / "in.onnx")
    load_model(tmp_path / "in.onnx").save(tmp_path / "out.onnx")
    # Untrained networks grow their activations; the tolerance is relative to them.
    x = (rng.normal(size=(2, 4, 5, 5)) * 0.1).astype(np.float32)
    assert_same(tmp_path / "in.onnx", tmp_path / "out.onnx", {"x": x}, 1e-3)
