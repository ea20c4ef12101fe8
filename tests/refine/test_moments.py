"""Moments of a layer's inputs by halves of the samples."""

import numpy as np
import pytest

from amct_lite.codebook.second_moments import mean_of
from amct_lite.errors import CalibrationError
from amct_lite.export.editor import GraphEditor
from amct_lite.graph.model import load_model
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.moments import fold_moments

RNG = np.random.default_rng(0)


@pytest.fixture
def inputs(write_network):
    text = "g (float[N,3,4,4] x) => (y) { [conv] y = Conv (x, w) }"
    model = load_model(write_network(text, {"w": np.ones((2, 3, 2, 2), np.float32)}))
    (layer,) = model.layers
    return LayerInputs.of_node(layer, GraphEditor(model).node_of(layer))


def batches(*values):
    """Pairs of one batch for each argument, whose samples are filled with the values given."""
    for samples in values:
        x = np.broadcast_to(np.array(samples, np.float32)[:, None, None, None], (len(samples), 3, 4, 4))
        yield x + np.float32(0.5), x


def test_they_are_the_means_of_what_onnxruntime_would_multiply(inputs):
    z, x = RNG.normal(size=(2, 6, 3, 4, 4)).astype(np.float32)
    found = mean_of(fold_moments(inputs, [(z[:3], x[:3]), (z[3:], x[3:])], seed=0))
    positions = inputs.positions(x.shape, 100, RNG)
    x_rows, z_rows = (inputs.vectors(values, positions)[0].astype(np.float64) for values in (x, z))
    assert found.count == len(x_rows)
    assert np.allclose(found.quadratic[0], x_rows.T @ x_rows / len(x_rows), rtol=1e-5, atol=1e-5)
    assert np.allclose(found.cross[0], z_rows.T @ x_rows / len(x_rows), rtol=1e-5, atol=1e-5)
    assert np.allclose(found.quantized_mean[0], x_rows.mean(axis=0), rtol=1e-5, atol=1e-5)
    assert np.allclose(found.float_mean[0], z_rows.mean(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("values", [[[1, 1, 5, 5]], [[1, 5], [1, 5]], [[1], [5]], [[1], [5], [1], [5]]])
def test_no_sample_is_in_both_halves(inputs, values):
    first, second = fold_moments(inputs, batches(*values), seed=0)
    assert np.allclose(first.quantized_mean, 1.0)
    assert np.allclose(first.float_mean, 1.5)
    assert np.allclose(second.quantized_mean, 5.0)


def test_a_single_sample_has_no_other_half(inputs):
    (only,) = fold_moments(inputs, batches([3]), seed=0)
    assert np.allclose(only.quadratic, 9.0)


def test_without_samples_the_layer_is_named(inputs):
    with pytest.raises(CalibrationError, match="conv"):
        fold_moments(inputs, [], seed=0)
