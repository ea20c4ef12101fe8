from collections.abc import Callable

import numpy as np
import pytest

from amct_lite.errors import ParameterError
from amct_lite.graph import load_model

NORM = "BatchNormalization(a, scale, shift, mean, var)"


def _norm(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    return {
        "scale": rng.normal(size=channels).astype(np.float32),
        "shift": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "var": rng.uniform(0.1, 3, size=channels).astype(np.float32),
    }


LAYERS = {
    "conv": ("float[N,4,6,6] x", "Conv(x, w, b)", (6, 4, 3, 3)),
    "conv without bias": ("float[N,4,6,6] x", "Conv(x, w)", (6, 4, 3, 3)),
    "conv in groups": ("float[N,4,6,6] x", "Conv<group = 2>(x, w, b)", (6, 2, 3, 3)),
    "conv 1-D": ("float[N,4,6] x", "Conv(x, w, b)", (6, 4, 3)),
    "deconv": ("float[N,4,6,6] x", "ConvTranspose<strides = [2,2]>(x, w, b)", (4, 6, 3, 3)),
    "deconv in groups": ("float[N,4,6,6] x", "ConvTranspose<group = 2>(x, w)", (4, 3, 3, 3)),
    "gemm": ("float[N,4] x", "Gemm(x, w, b)", (4, 6)),
    "gemm transB": ("float[N,4] x", "Gemm<transB = 1>(x, w)", (6, 4)),
    "gemm alpha beta": ("float[N,4] x", "Gemm<alpha = 0.5, beta = 2.0>(x, w, b)", (4, 6)),
    "gemm beta without bias": ("float[N,4] x", "Gemm<beta = 2.0>(x, w)", (4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_folded_layer_equals_its_twin(
    name: str, make_file: Callable, assert_same: Callable, rng: np.random.Generator
) -> None:
    declared, call, shape = LAYERS[name]
    weights = {"w": rng.normal(size=shape).astype(np.float32), **_norm(rng, 6)}
    if "b)" in call:
        weights["b"] = rng.normal(size=6).astype(np.float32)
    path = make_file(f"g ({declared}) => (y) {{ a = {call} y = {NORM} }}", weights)
    model = load_model(path)
    assert len(model.ir.graph) == 1
    assert model.layers[0].bias is not None
    assert model.layers[0].output == "y"
    model.save(path.with_name("out.onnx"))
    dims = [3, *(int(d) for d in declared.split("]")[0].split(",")[1:])]
    assert_same(path, path.with_name("out.onnx"), {"x": rng.normal(size=dims).astype(np.float32)})


def test_two_in_a_row_fold(make_file: Callable, assert_same: Callable, rng: np.random.Generator) -> None:
    path = make_file(
        f"g (float[N,4,5,5] x) => (y) {{ a0 = Conv(x, w) a = {NORM.replace('(a', '(a0')} y = {NORM} }}",
        {"w": rng.normal(size=(6, 4, 3, 3)).astype(np.float32), **_norm(rng, 6)},
    )
    model = load_model(path)
    assert len(model.ir.graph) == 1
    model.save(path.with_name("out.onnx"))
    assert_same(path, path.with_name("out.onnx"), {"x": rng.normal(size=(2, 4, 5, 5)).astype(np.float32)})


W = (6, 4, 3, 3)
UNFOLDABLE = {
    "behind relu": f"g (float[N,4,5,5] x) => (y) {{ r = Conv(x, w) a = Relu(r) y = {NORM} }}",
    "output also read": f"g (float[N,4,5,5] x) => (y, z) {{ a = Conv(x, w) y = {NORM} z = Relu(a) }}",
    "output also returned": f"g (float[N,4,5,5] x) => (y, a) {{ a = Conv(x, w) y = {NORM} }}",
    "output captured": f"g (float[N,4,5,5] x, bool c) => (y, z) {{ a = Conv(x, w) y = {NORM} "
    "z = If(c) <then_branch = t () => (o) {o = Relu(a)}, else_branch = e () => (o) {o = Abs(a)}> }",
    "weight tied": f"g (float[N,4,5,5] x) => (y, z) {{ a = Conv(x, w) y = {NORM} z = Conv(x, w) }}",
    "weight overridable": f"g (float[N,4,5,5] x, float[6,4,3,3] w) => (y) {{ a = Conv(x, w) y = {NORM} }}",
    "bias not constant": f"g (float[N,4,5,5] x, float[6] b) => (y) {{ a = Conv(x, w, b) y = {NORM} }}",
    "scale overridable": f"g (float[N,4,5,5] x, float[6] scale) => (y) {{ a = Conv(x, w) y = {NORM} }}",
}


@pytest.mark.parametrize("name", UNFOLDABLE)
def test_unfoldable_norm_is_left_alone(
    name: str, make_file: Callable, assert_same: Callable, rng: np.random.Generator
) -> None:
    path = make_file(UNFOLDABLE[name], {"w": rng.normal(size=W).astype(np.float32), **_norm(rng, 6)})
    model = load_model(path)
    assert "BatchNormalization" in {node.op_type for node in model.ir.graph}
    model.save(path.with_name("out.onnx"))
    feeds = {"x": rng.normal(size=(2, 4, 5, 5)).astype(np.float32), "c": np.array(True)}
    feeds["b"] = rng.normal(size=6).astype(np.float32)
    inputs = {value.name for value in model.ir.graph.inputs}
    assert_same(path, path.with_name("out.onnx"), {k: v for k, v in feeds.items() if k in inputs})


def test_training_mode_is_left_alone(make_graph: Callable, rng: np.random.Generator) -> None:
    from amct_lite.graph.passes.batch_norm_folding import fold_batch_norms

    text = "g (float[N,4,5,5] x) => (y) { a = Conv(x, w) y, m, v = BatchNormalization<training_mode = 1>"
    weights = {"w": rng.normal(size=W).astype(np.float32), **_norm(rng, 6)}
    model = make_graph(text + "(a, scale, shift, mean, var) }", weights, opset=15)
    assert fold_batch_norms(model) == ()


def test_shared_bias_is_not_changed_for_others(
    make_file: Callable, assert_same: Callable, rng: np.random.Generator
) -> None:
    weights = {"w": rng.normal(size=W), "w2": rng.normal(size=W), "b": rng.normal(size=6)}
    path = make_file(
        f"g (float[N,4,5,5] x) => (y, z) {{ a = Conv(x, w, b) y = {NORM} z = Conv(x, w2, b) }}",
        {**{k: v.astype(np.float32) for k, v in weights.items()}, **_norm(rng, 6)},
    )
    model = load_model(path)
    assert [layer.bias for layer in model.layers] == ["Conv_0_bias", "b"]
    model.save(path.with_name("out.onnx"))
    assert_same(path, path.with_name("out.onnx"), {"x": rng.normal(size=(2, 4, 5, 5)).astype(np.float32)})


def test_folding_can_be_switched_off_for_all_or_some(make_file: Callable, rng: np.random.Generator) -> None:
    text = f"g (float[N,4,5,5] x) => (y) {{ [first] a = Conv(x, w) y = {NORM} }}"
    path = make_file(text, {"w": rng.normal(size=W).astype(np.float32), **_norm(rng, 6)})
    assert len(load_model(path, fold_batch_norm=False).ir.graph) == 2
    assert len(load_model(path, skip_fusion_layers=["first"]).ir.graph) == 2
    assert len(load_model(path, skip_fusion_layers=[]).ir.graph) == 1
    with pytest.raises(ParameterError, match="'frist'"):
        load_model(path, skip_fusion_layers=["frist"])
    with pytest.raises(ParameterError, match="list of names"):
        load_model(path, skip_fusion_layers="first")


def test_zero_variance_is_left_alone(make_file: Callable, rng: np.random.Generator) -> None:
    text = "g (float[N,4,5,5] x) => (y) { a = Conv(x, w) y = BatchNormalization<epsilon = 0.0>"
    norm = _norm(rng, 6) | {"var": np.zeros(6, np.float32)}
    weights = {"w": rng.normal(size=W).astype(np.float32), **norm}
    path = make_file(text + "(a, scale, shift, mean, var) }", weights)
    assert len(load_model(path).ir.graph) == 2
