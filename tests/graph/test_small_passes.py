from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.graph import load_model
from amct_lite.graph.passes.constant_nodes import lift_constants
from amct_lite.graph.passes.gemm_scaling import fold_gemm_scaling
from amct_lite.graph.passes.initializer_inputs import drop_initializer_inputs
from amct_lite.graph.passes.shapes import infer_shapes
from amct_lite.graph.passes.unused import remove_unused


def _ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_constants_of_every_kind_become_initializers(make_graph: Callable) -> None:
    model = make_graph(
        """g (float[2] x) => (float[2] y, int64[2] s) {
        a = Constant<value = float[2] {1, 2}>() b = Constant<value_float = 3.0>()
        c = Constant<value_floats = [1.0, 2.0]>() d = Constant<value_int = 2>()
        e = Constant<value_ints = [1, 2]>()
        p = Add(x, a) q = Mul(p, b) y = Add(q, c) s = Add(d, e) }"""
    )
    assert lift_constants(model)
    assert _ops(model) == ["Add", "Mul", "Add", "Add"]
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "a": (np.float32, (2,)),
        "b": (np.float32, ()),
        "c": (np.float32, (2,)),
        "d": (np.int64, ()),
        "e": (np.int64, (2,)),
    }


def test_constants_in_bodies_and_constant_outputs_stay(make_graph: Callable) -> None:
    model = make_graph(
        """g (bool c) => (float[2] y, float[2] k) {
        k = Constant<value = float[2] {1, 2}>()
        y = If(c) <then_branch = t () => (float[2] o) { o = Constant<value = float[2] {3, 4}>() },
                   else_branch = e () => (float[2] o) { o = Identity(k) }> }"""
    )
    assert not lift_constants(model)
    assert [node.op_type for node in model.graph.all_nodes()] == ["Constant", "If", "Constant", "Identity"]


@pytest.mark.parametrize(("ir_version", "inputs"), [(3, ["x"]), (4, ["x", "w"])])
def test_only_old_files_lose_initializers_among_inputs(
    make_graph: Callable, ir_version: int, inputs: list[str]
) -> None:
    model = make_graph(
        "g (float[1,2] x, float[2,2] w) => (float[1,2] y) { y = Gemm(x, w) }",
        {"w": np.eye(2, dtype=np.float32)},
        ir_version=ir_version,
    )
    drop_initializer_inputs(model)
    assert [value.name for value in model.graph.inputs] == inputs
    assert model.ir_version == 4
    assert "w" in model.graph.initializers


def test_old_file_with_initializers_as_inputs_loads_and_is_quantizable(
    make_file: Callable, assert_same: Callable, rng: np.random.Generator
) -> None:
    path = make_file(
        "g (float[1,2] x, float[2,2] w) => (float[1,2] y) { y = Gemm(x, w) }",
        {"w": rng.normal(size=(2, 2)).astype(np.float32)},
        ir_version=3,
        opset=11,
    )
    model = load_model(path)
    assert [value.name for value in model.ir.graph.inputs] == ["x"]
    assert model.layers[0].blocked is None
    model.save(path.with_name("out.onnx"))
    assert_same(path, path.with_name("out.onnx"), {"x": rng.normal(size=(1, 2)).astype(np.float32)})


def test_unused_nodes_and_initializers_go_and_captured_ones_stay(make_graph: Callable) -> None:
    model = make_graph(
        """g (bool c, float[2] x) => (float[2] y) {
        captured = Relu(x) dead = Relu(x) dead2 = Add(dead, w)
        y = If(c) <then_branch = t () => (float[2] o) { o = Neg(captured) },
                   else_branch = e () => (float[2] o) { o = Identity(v) }> }""",
        {"w": np.ones(2, np.float32), "v": np.ones(2, np.float32)},
    )
    assert remove_unused(model)
    assert _ops(model) == ["Relu", "If"]
    assert list(model.graph.initializers) == ["v"]
    assert not remove_unused(model)


def test_an_unused_if_releases_what_it_captures(make_graph: Callable) -> None:
    model = make_graph(
        """g (bool c, float[2] x) => (float[2] y) {
        captured = Relu(x)
        dead = If(c) <then_branch = t () => (float[2] o) { o = Neg(captured) },
                      else_branch = e () => (float[2] o) { o = Abs(captured) }>
        y = Sigmoid(x) }"""
    )
    remove_unused(model)
    assert _ops(model) == ["Sigmoid"]


def test_shapes_are_inferred_with_dynamic_batch_and_big_weights(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,3,8,8] x) => (y) { a = Conv(x, w) y = Relu(a) }",
        {"w": np.ones((16, 3, 3, 3), np.float32)},
    )
    assert infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == "[N,16,6,6]"
    assert model.graph.initializers["w"].const_value is not None
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_stale_shapes_of_a_batch_made_dynamic_are_not_believed(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,4] x) => (int64[2] s) <float[1,4] a, float[1,2] b> "
        "{ a = Relu(x) d = Abs(x) n = Shape(d) b = Reshape(a, n) s = Shape(b) }"
    )
    assert infer_shapes(model)
    assert not any(value.shape.is_static() for value in (model.graph[0].outputs[0], model.graph[3].outputs[0]))


def test_failed_shape_inference_is_a_warning(make_graph: Callable, caplog: pytest.LogCaptureFixture) -> None:
    model = make_graph("g (float[2,3] x) => (float[2,3] y) { y = NoSuchOperator(x) }")
    model.graph[0].attributes.add(ir.AttrString("a", "b"))
    model.graph.opset_imports[""] = 999
    infer_shapes(model)
    assert _ops(model) == ["NoSuchOperator"]


@pytest.mark.parametrize("alpha", [1.0, 0.5, -2.0])
@pytest.mark.parametrize("beta", [1.0, 3.0, 0.0])
def test_gemm_factors_move_into_constants(
    make_file: Callable, run_model: Callable, rng: np.random.Generator, alpha: float, beta: float
) -> None:
    path = make_file(
        f"g (float[N,4] x) => (float[N,3] y) {{ y = Gemm<alpha = {alpha}, beta = {beta}>(x, w, b) }}",
        {"w": rng.normal(size=(4, 3)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)},
    )
    model = load_model(path)
    assert not {"alpha", "beta"} & {a.name for a in model.ir.graph[0].attributes.values() if a.as_float() != 1}
    x = {"x": rng.normal(size=(5, 4)).astype(np.float32)}
    model.save(path.with_name("out.onnx"))
    np.testing.assert_allclose(
        run_model(path, x)["y"], run_model(path.with_name("out.onnx"), x)["y"], rtol=1e-5, atol=1e-5
    )


def test_gemm_factor_of_a_tied_weight_stays(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[N,4] x) => (y) { a = Gemm<alpha = 2.0>(x, w) y = Gemm(a, w) }",
        {"w": np.ones((4, 4), np.float32)},
    )
    assert not fold_gemm_scaling(model)
    assert model.graph[0].attributes.get_float("alpha", 1.0) == 2.0
