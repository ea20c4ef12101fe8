"""A weight's importance is the energy that an error in it adds to the layer's output: against brute force."""

import dataclasses

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from amct_lite.calibration.statistics import Statistics
from amct_lite.graph.model import load_model
from amct_lite.quantize.importance import weight_importance
from amct_lite.types import Layer, LayerKind

# (graph, shape of the weight, shape of the input)
LAYERS = {
    "Conv": ("Conv(x, w)", (3, 4, 2, 3), (5, 4, 6, 6)),
    "Conv 1d": ("Conv(x, w)", (3, 4, 2), (5, 4, 6)),
    "Conv strided": ("Conv <strides = [2, 1], dilations = [1, 2]> (x, w)", (3, 4, 2, 2), (5, 4, 6, 6)),
    "Conv grouped": ("Conv <group = 2> (x, w)", (6, 2, 2, 2), (5, 4, 5, 5)),
    "Conv depthwise": ("Conv <group = 4> (x, w)", (4, 1, 2, 2), (5, 4, 5, 5)),
    "Conv depthwise, 2 filters a channel": ("Conv <group = 4> (x, w)", (8, 1, 2, 2), (5, 4, 5, 5)),
    "ConvTranspose": ("ConvTranspose(x, w)", (4, 3, 2, 2), (5, 4, 5, 5)),
    "ConvTranspose grouped": ("ConvTranspose <group = 2> (x, w)", (4, 3, 2, 2), (5, 4, 5, 5)),
    "Gemm": ("Gemm(x, w)", (4, 3), (7, 4)),
    "Gemm transB": ("Gemm <transB = 1> (x, w)", (3, 4), (7, 4)),
    "Gemm transA": ("Gemm <transA = 1> (x, w)", (4, 3), (4, 7)),
    "Gemm transA transB": ("Gemm <transA = 1, transB = 1> (x, w)", (3, 4), (4, 7)),
    "Gemm weight first": ("Gemm(w, x)", (3, 4), (4, 7)),
    "Gemm weight first transB": ("Gemm <transB = 1> (w, x)", (3, 4), (7, 4)),
    "MatMul": ("MatMul(x, w)", (4, 3), (7, 4)),
    "MatMul of rank 3": ("MatMul(x, w)", (4, 3), (2, 5, 4)),
    "MatMul weight first": ("MatMul(w, x)", (3, 4), (4, 7)),
    "MatMul weight first of rank 3": ("MatMul(w, x)", (3, 4), (2, 4, 6)),
}


def output_energies(operator: str, weight_shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """What an error of 1 in each weight alone adds to the sum of squares of the output, by running the operator."""
    text = f"net (float{list(x.shape)} x, float{list(weight_shape)} w) => (float y) {{ y = {operator} }}"
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 13]> {text}')
    model.graph.outputs[0].shape = None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    energies = np.zeros(weight_shape)
    for index in np.ndindex(*weight_shape):
        # The operator is linear in its weight: an error's output does not depend on the weight it is added to.
        error = np.zeros(weight_shape, np.float32)
        error[index] = 1.0
        energies[index] = np.square(session.run(None, {"x": x, "w": error})[0], dtype=np.float64).sum()
    return energies


@pytest.mark.parametrize("name", LAYERS)
def test_importance_is_in_proportion_to_the_energy_that_an_error_adds_to_the_output(write_network, name: str) -> None:
    operator, weight_shape, input_shape = LAYERS[name]
    rng = np.random.default_rng(len(name))
    text = f"net (float{list(input_shape)} x) => (float y) {{ y = {operator} }}"
    (layer,) = load_model(write_network(text, {"w": np.ones(weight_shape, np.float32)})).layers
    x = rng.normal(size=input_shape).astype(np.float32)
    if "Conv" in operator:
        # The same value all over a channel, so that every tap of a filter meets the same mean square at the borders.
        x = np.broadcast_to(x[(..., *(slice(0, 1),) * (x.ndim - 2))], x.shape).copy()
    statistics = Statistics.for_layers([layer])
    statistics.observe("x", x)
    importance = np.broadcast_to(weight_importance(layer, statistics.mean_squares(layer)), weight_shape)
    energies = output_energies(operator, weight_shape, x)
    ratio = energies / importance
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
    assert importance.min() < 0.9 * importance.max(), "the channels should differ, or nothing is tested"


def test_errors_of_many_weights_add_up_where_inputs_are_uncorrelated() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([0.1, 1.0, 3.0, 0.5])
    x = (rng.normal(size=(200_000, 4)) * scales).astype(np.float32)
    error = rng.normal(size=(4, 3)).astype(np.float32)
    layer = _gemm()
    importance = weight_importance(layer, np.square(x, dtype=np.float64).mean(axis=0))
    assert np.square(x @ error).sum(axis=1).mean() == pytest.approx((importance * np.square(error)).sum(), rel=0.02)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_statistics_that_do_not_fit_the_weight_count_all_weights_alike(size: int) -> None:
    grouped = dataclasses.replace(
        _gemm(), kind=LayerKind.CONVOLUTION, group=4, weight_shape=(4, 2, 3, 3), output_channel_axis=0
    )
    for layer in (_gemm(), grouped):
        importance = weight_importance(layer, np.arange(size) + 1.0)
        assert (np.broadcast_to(importance, layer.weight_shape) == 1.0).all()


def _gemm() -> Layer:
    return Layer("f", "Gemm", LayerKind.INNER_PRODUCT, "x", 0, 1, "y", "w", 1, (4, 3), 1)
