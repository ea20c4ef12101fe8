"""From statistics to the record: every layer's factors, the guard for biases, and what cannot be calibrated."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amct_lite.calibration.statistics import Statistics
from amct_lite.codebook.entropy import entropy_bits
from amct_lite.codebook.weight_nuq import cluster_weight
from amct_lite.errors import CalibrationError
from amct_lite.files.record import LayerRecord
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.planned_graph import PlannedGraph, open_graph
from amct_lite.uniform.arq import weight_scales

NETWORK = """net (float[1, 4, 9, 9] x) => (float[1, 4, 7, 7] y) { [conv] y = Conv(x, w, b) }"""
TIED = """net (float[1, 4, 9, 9] x) => (float[1, 4, 5, 5] y) {
    [one] a = Conv(x, w, b)
    [two] y = Conv(a, w, c)
}"""
ARQ = {"weight_quant_params": {"channel_wise": True}}
NUQ = {"weight_quant_params": {"wts_algo": "nuq_quantize", "num_steps": 16, "num_of_iteration": 3}}
AWARE = {"weight_quant_params": {**NUQ["weight_quant_params"], "entropy_weight": 8.0}}
OF_TENSOR = {"weight_quant_params": {"channel_wise": False}}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def weights(rng) -> dict[str, np.ndarray]:
    return {"w": rng.normal(size=(4, 4, 3, 3)).astype(np.float32), "b": np.zeros(4, np.float32)}


@pytest.fixture
def plan_network(tmp_path: Path, write_network) -> Callable[..., PlannedGraph]:
    def planned(text: str, weights: Any, **document: Any) -> PlannedGraph:
        (tmp_path / "config.json").write_text(json.dumps({"target": "onnxruntime", **document}))
        return open_graph(tmp_path / "config.json", write_network(text, weights))

    return planned


def records_of(graph: PlannedGraph, scale: float = 1.0) -> dict[str, LayerRecord]:
    statistics = Statistics.for_layers(graph.quantized_layers)
    values = np.random.default_rng(0).normal(size=(1, 4, 9, 9)).astype(np.float32) * np.float32(scale)
    for tensor in statistics.tensors:
        statistics.observe(tensor, values)
    return make_records(graph.model, graph.plans, statistics)


@pytest.mark.parametrize("block", [ARQ, NUQ, OF_TENSOR])
def test_a_layers_factors_decode_close_to_its_weight(plan_network, weights, block) -> None:
    graph = plan_network(NETWORK, weights, conv=block)
    records = records_of(graph)
    (found,) = quantized_layers(graph.model, records)
    record = records["conv"]
    assert record.offset_w == (0,) * len(record.scale_w) == (0,) * (1 if block is OF_TENSOR else 4)
    assert len(record.cluster) == (16 if block is NUQ else 0)
    assert set(record.cluster) >= (set(np.unique(found.weight)) if block is NUQ else set())
    step = max(record.scale_w) * (16 if block is NUQ else 0.5)
    assert np.abs(found.decode_weight() - weights["w"]).max() <= step * 1.001


@pytest.mark.parametrize("block", [ARQ, NUQ, OF_TENSOR])
@pytest.mark.parametrize("huge", [1e6, -1e9])
def test_a_huge_bias_raises_the_weight_scale_of_its_channel_and_says_so(
    plan_network, weights, caplog, block, huge
) -> None:
    weights["w"] *= np.float32(1e-4)
    plain = records_of(plan_network(NETWORK, weights, conv=block))["conv"]
    weights["b"][2] = huge
    graph = plan_network(NETWORK, weights, conv=block)
    with caplog.at_level(logging.WARNING):
        raised = records_of(graph)["conv"]
    assert "'conv': Quantized bias would exceed int32 range in 1 channel(s)" in caplog.text
    changed = [n for n, (old, new) in enumerate(zip(plain.scale_w, raised.scale_w, strict=True)) if new != old]
    assert changed == ([0] if block is OF_TENSOR else [2])
    assert all(new >= old for old, new in zip(plain.scale_w, raised.scale_w, strict=True))
    (found,) = quantized_layers(graph.model, {"conv": raised})
    assert abs(int(found.bias[2])) > 2**30
    assert found.decode_bias()[2] == pytest.approx(huge, rel=1e-6)
    if block is NUQ:
        assert set(np.unique(found.weight)) <= set(raised.cluster)


def test_no_warning_without_a_huge_bias(plan_network, weights, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        records_of(plan_network(NETWORK, weights, conv=ARQ))
    assert "exceed int32" not in caplog.text


@pytest.mark.parametrize("huge", [0.0, 1e6])
def test_an_entropy_weight_reaches_the_clustering_and_its_assignment_comes_back(plan_network, weights, huge) -> None:
    weights["w"] *= np.float32(1e-4)
    weights["b"][2] = huge
    graph = plan_network(NETWORK, weights, conv=AWARE)
    record = records_of(graph)["conv"]
    assert len(record.cluster_cost) == len(record.cluster) <= 16
    (found,) = quantized_layers(graph.model, {"conv": record})
    assert tuple(np.unique(found.weight)) == record.cluster
    plain = records_of(plan_network(NETWORK, weights, conv=NUQ))
    (nearest,) = quantized_layers(graph.model, plain)
    assert entropy_bits(found.weight) < entropy_bits(nearest.weight)
    if not huge:
        scales = weight_scales(weights["w"], axis=0)
        chosen = cluster_weight(weights["w"], scales, axis=0, num_steps=16, num_of_iteration=3, entropy_weight=8.0)
        np.testing.assert_array_equal(found.weight, chosen.quantized)


@pytest.mark.parametrize("block", [ARQ, NUQ, AWARE, OF_TENSOR])
def test_layers_that_share_a_weight_share_its_factors_raised_for_the_neediest_bias(
    plan_network, weights, block
) -> None:
    weights["w"] *= np.float32(1e-4)
    weights["c"] = np.array([0, 1e6, 0, 0], np.float32)
    graph = plan_network(TIED, weights, one=block, two=block)
    records = records_of(graph)
    assert records["one"].scale_w == records["two"].scale_w
    assert records["one"].cluster == records["two"].cluster
    assert records["one"].cluster_cost == records["two"].cluster_cost
    assert len(records["one"].cluster_cost) == (len(records["one"].cluster) if block is AWARE else 0)
    one, two = quantized_layers(graph.model, records)
    np.testing.assert_array_equal(one.weight, two.weight)
    assert two.decode_bias()[1] == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("w", 1e12, "greater than 1 / FLT_EPSILON"),
        ("b", np.nan, "The bias must be finite"),
        ("b", np.inf, "The bias must be finite"),
    ],
)
def test_a_weight_or_bias_that_no_scale_fits_names_its_layer(plan_network, weights, name, value, message) -> None:
    weights[name].flat[0] = value
    with pytest.raises(CalibrationError, match=message) as caught:
        records_of(plan_network(NETWORK, weights, conv=ARQ))
    assert caught.value.layer == "conv"
    assert "skip_layers" in str(caught.value.remedy)


def test_an_input_that_had_no_values_names_its_layer(plan_network, weights) -> None:
    graph = plan_network(NETWORK, weights, conv=ARQ)
    statistics = Statistics.for_layers(graph.quantized_layers)
    statistics.observe("x", np.zeros((0, 4, 9, 9), np.float32))
    with pytest.raises(CalibrationError, match="'x' had no values in any batch") as caught:
        make_records(graph.model, graph.plans, statistics)
    assert caught.value.layer == "conv"


def test_an_input_that_was_not_observed_names_its_layer(plan_network, weights) -> None:
    graph = plan_network(NETWORK, weights, conv=ARQ)
    with pytest.raises(CalibrationError, match="was not observed") as caught:
        make_records(graph.model, graph.plans, Statistics({"other": 1}))
    assert caught.value.layer == "conv"


@pytest.mark.parametrize("ratio", [0.01, 0.125, 1.0])
def test_the_ratio_says_how_many_activation_levels_are_kept(plan_network, weights, ratio: float) -> None:
    block = {"activation_quant_params": {"nuq": {"target_compression_ratio": ratio}}}
    record = records_of(plan_network(NETWORK, weights, conv=block))["conv"]
    assert 1 <= len(record.activation_cluster) <= max(2, 256 * ratio)
    assert list(record.activation_cluster) == sorted(set(record.activation_cluster))
    assert record.activation_cluster[0] >= -128 and record.activation_cluster[-1] <= 127


def test_without_an_offset_the_activations_zero_is_level_0(plan_network, weights) -> None:
    record = records_of(plan_network(NETWORK, weights, activation_offset=False, conv=ARQ))["conv"]
    assert record.offset_d == 0
