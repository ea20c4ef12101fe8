from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_lite.errors import ModelError
from amct_lite.graph import load_model
from amct_lite.graph.passes.opset import raise_opset

NEWEST = 26  # the newest that onnxruntime 1.31 runs; raise it with the runtime
NET = """g (float[N,3,8,8] x) => (float[N,10] y) {
    a = Conv<pads = [1,1,1,1]>(x, w, b) c = BatchNormalization(a, scale, shift, mean, var)
    d = Relu(c) e = MaxPool<kernel_shape = [8,8]>(d) f = Flatten(e) h = Gemm<transB = 1>(f, v, u)
    y = Softmax<axis = 1>(h) }"""


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    arrays = {
        "w": rng.normal(size=(16, 3, 3, 3)),
        "b": rng.normal(size=16),
        "scale": rng.uniform(0.5, 2, size=16),
        "shift": rng.normal(size=16),
        "mean": rng.normal(size=16),
        "var": rng.uniform(0.5, 2, size=16),
        "v": rng.normal(size=(10, 16)),
        "u": rng.normal(size=10),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
def test_every_opset_loads_and_gives_the_same_outputs(
    opset: int, make_file: Callable, assert_same: Callable, rng: np.random.Generator
) -> None:
    path = make_file(NET, _weights(rng), opset=opset)
    model = load_model(path)
    assert model.ir.opset_imports[""] == max(opset, 13)
    assert "BatchNormalization" not in {node.op_type for node in model.ir.graph}
    assert [(layer.op_type, layer.blocked) for layer in model.layers] == [("Conv", None), ("Gemm", None)]
    model.save(path.with_name("out.onnx"))
    assert_same(path, path.with_name("out.onnx"), {"x": rng.normal(size=(2, 3, 8, 8)).astype(np.float32)})


def test_newer_opset_is_left_alone(make_graph: Callable) -> None:
    model = make_graph("g (float[1] x) => (float[1] y) { y = Relu(x) }", opset=18)
    assert raise_opset(model) is model


def test_weights_are_shared_with_the_original(make_graph: Callable) -> None:
    weight = np.ones((64, 64), np.float32)
    model = make_graph("g (float[1,64] x) => (y) { y = Gemm(x, w) }", {"w": weight}, opset=11)
    tensor = model.graph.initializers["w"].const_value
    raised = raise_opset(model)
    assert raised.graph.initializers["w"].const_value is tensor
    assert [value.name for value in raised.graph.inputs] == ["x"]
    assert model.opset_imports[""] == 11


def test_overridable_initializer_survives_with_its_default(make_graph: Callable) -> None:
    model = make_graph(
        "g (float[1,64] x, float[64,64] w) => (y) { y = Gemm(x, w) }",
        {"w": np.ones((64, 64), np.float32)},
        opset=11,
    )
    raised = raise_opset(model)
    assert [value.name for value in raised.graph.inputs] == ["x", "w"]
    assert raised.graph.initializers["w"].is_graph_input()


def test_custom_domain_bodies_names_and_metadata_survive(make_graph: Callable) -> None:
    model = make_graph(
        """g (float[1,3] x, bool c) => (y, float[3] z) {
        [mine] a = custom.Twist<strength = 2.0>(x) b, k = custom.Split(a) y = Squeeze<axes = [0]>(b)
        z = If(c) <then_branch = t () => (float[3] o) { o = Squeeze<axes = [0]>(x) },
                   else_branch = e () => (float[3] o) { o = Squeeze<axes = [0]>(x) }> }""",
        opset=11,
    )
    model.metadata_props["author"] = "me"
    model.producer_name = "exporter"
    raised = raise_opset(model)
    assert raised.opset_imports == {"": 13, "custom": 1}
    twist = next(node for node in raised.graph if node.op_type == "Twist")
    assert (twist.domain, twist.attributes.get_float("strength")) == ("custom", 2.0)
    assert raised.metadata_props == {"author": "me"}
    assert raised.producer_name == "exporter"
    squeezes = [node for node in raised.graph.all_nodes() if node.op_type == "Squeeze"]
    assert len(squeezes) == 3
    assert all(len(node.inputs) == 2 for node in squeezes)


def test_functions_survive(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 11, "local": 1]>
        g (float[3] x) => (float[3] y) { y = local.F(x) }
        <domain: "local", opset_import: ["": 11]> F (a) => (b) { b = Relu(a) }"""
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = load_model(tmp_path / "m.onnx").ir
    assert [function.name for function in model.functions.values()] == ["F"]


def test_what_the_converter_cannot_do_is_a_model_error(make_file: Callable) -> None:
    path = make_file("g (float[1] x) => (y) { y = NoSuchOperator(x) }", opset=9)
    with pytest.raises(ModelError, match="9 cannot be raised to 13") as caught:
        load_model(path)
    assert caught.value.remedy and caught.value.__cause__ is not None
