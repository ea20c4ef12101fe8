"""Sensitivities of layers: measured inside a graph as by hand, and predicted as measured."""

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.calibration.sweep import sweep
from amct_lite.diagnosis.compare import compare_layers
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.graph.model import load_model
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.layer_ranking import Sensitivity, rank_layers
from amct_lite.search.output_similarity import output_similarities

LAYERS = ["conv1", "conv2", "conv3", "fc1", "fc2", "pool"]


@pytest.fixture(scope="module")
def images():
    return load_split().calibration.images[:64]


@pytest.fixture(scope="module")
def planned(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("planned")
    amct.create_quant_config(folder / "config.json", MODEL_FILE)
    graph = amct.init(folder / "config.json", MODEL_FILE, None, folder / "record.txt")
    amct.calibrate(graph, [images])
    return graph


@pytest.fixture(scope="module")
def store(planned, images):
    return FactorStore(planned.model, sweep(planned.model, planned.observed_layers, [images], 1))


def layers_of(planned):
    return quantized_layers(planned.model, planned.read_records())


def test_they_are_those_of_tensors_that_left_the_graph(planned, images):
    layers = layers_of(planned)
    found = output_similarities(planned.model, layers, [{"image": images}])
    assert sorted(found) == LAYERS
    table = compare_layers(planned.model, fake_quant_model(planned.model, layers), [images], planned.plans)
    for row in table:
        similarity = found[row.layer]
        assert similarity.cosine == pytest.approx(0.5 + 0.5 * row.own_cosine, abs=1e-12)
        assert 10 * np.log10(1 / similarity.relative_mse) == pytest.approx(row.own_sqnr_db, abs=1e-6)


def test_they_are_means_over_batches(planned, images):
    layers = layers_of(planned)
    halves = [{"image": images[:20]}, {"image": images[20:]}]
    each = [output_similarities(planned.model, layers, [half]) for half in halves]
    both = output_similarities(planned.model, layers, halves)
    for name in LAYERS:
        for figure in ("cosine", "mse", "relative_mse"):
            one, two = (getattr(found[name], figure) for found in each)
            assert getattr(both[name], figure) == pytest.approx((one + two) / 2, rel=1e-9)


def test_only_layers_that_are_quantized_have_one(planned, images):
    some = [layer for layer in layers_of(planned) if layer.layer.name in ("conv2", "fc1")]
    assert sorted(output_similarities(planned.model, some, [{"image": images}])) == ["conv2", "fc1"]


def quantize_network(tmp_path, write_network, weight, batch):
    text = "agraph (float[N, 2] x) => (float[N, 2] y) { y = MatMul(x, w) }"
    path = write_network(text, {"w": np.array(weight, np.float32)})
    amct.create_quant_config(tmp_path / "config.json", path, target="onnxruntime")
    graph = amct.init(tmp_path / "config.json", path, None, tmp_path / "record.txt")
    amct.calibrate(graph, [np.array(batch, np.float32)])
    return load_model(path), quantized_layers(graph.model, graph.read_records())


def test_an_output_of_zeros_is_similar_and_one_that_vanishes_is_not(tmp_path, write_network):
    """AMCT's two special cases: 1 where the original is all zero, 0 where only the quantized output is."""
    weight = np.eye(2) * 100
    model, layers = quantize_network(tmp_path, write_network, weight, [[1.0, -1.0]])
    (name,) = (layer.layer.name for layer in layers)
    zeros = output_similarities(model, layers, [{"x": np.zeros((1, 2), np.float32)}])[name]
    assert (zeros.cosine, zeros.relative_mse) == (1.0, 0.0)
    # Far below half a step of the input's grid: the quantized output is zero everywhere.
    vanishing = output_similarities(model, layers, [{"x": np.full((1, 2), 1e-6, np.float32)}])[name]
    assert vanishing.cosine == 0.0
    assert vanishing.relative_mse == pytest.approx(1.0)


def test_predicted_errors_are_of_the_measured_order_and_put_the_same_layer_first(planned, store, images):
    predicted = rank_layers(Sensitivity.RELATIVE_MSE, planned, store, ())
    measured = rank_layers(Sensitivity.RELATIVE_MSE, planned, store, [{"image": images}])
    assert not predicted.measured
    assert measured.measured
    assert next(iter(predicted.values)) == next(iter(measured.values))
    for name in LAYERS:
        # Outputs of layers with a bias, and after clipping, have more signal than the prediction knows of.
        assert 0.2 < predicted.errors[name] / measured.errors[name] < 10


def test_a_cosine_without_samples_is_what_independent_noise_gives(planned, store):
    errors = rank_layers(Sensitivity.RELATIVE_MSE, planned, store, ()).errors
    derived = rank_layers(Sensitivity.COSINE, planned, store, ())
    assert not derived.measured
    assert list(derived.values) == sorted(LAYERS, key=lambda name: -errors[name])
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(100_000)
    noisy = signal + np.sqrt(0.2) * rng.standard_normal(signal.size)
    cosine = signal @ noisy / np.sqrt((signal @ signal) * (noisy @ noisy))
    assert 1 / np.sqrt(1.2) == pytest.approx(cosine, abs=5e-3)
    for name in LAYERS:
        assert derived.values[name] == pytest.approx(0.5 + 0.5 / np.sqrt(1 + errors[name]), abs=1e-12)
