"""codebook/entropy_constrained.py and decision_bounds.py: error + price * bits, and the way down to its minimum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.codebook.assignment import quantize_to_levels
from amct_lite.codebook.decision_bounds import decision_bounds
from amct_lite.codebook.entropy import entropy_bits
from amct_lite.codebook.entropy_constrained import price_levels
from amct_lite.codebook.weight_nuq import cluster_weight
from amct_lite.errors import ParameterError
from amct_lite.uniform.arq import dequantize_weight, weight_scales

seeds = st.integers(0, 2**32 - 1)


def random_weight(seed: int, channels: int = 5, size: int = 60) -> np.ndarray:
    """Rows of very different ranges, so that bounds differ from row to row."""
    rng = np.random.default_rng(seed)
    return (rng.standard_t(3, (channels, size)) * 10.0 ** rng.uniform(-3, 3, (channels, 1))).astype(np.float32)


def priced(weight: np.ndarray, entropy_weight: float, num_steps: int = 8, **options):
    scales = weight_scales(weight, axis=0)
    return cluster_weight(weight, scales, axis=0, num_steps=num_steps, entropy_weight=entropy_weight, **options)


def lagrangian(weight, levels, scales, price) -> float:
    error = np.square(weight - dequantize_weight(levels, scales, axis=0).astype(np.float64)).sum()
    return float(error + price * levels.size * entropy_bits(levels))


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 8), st.floats(0, 100))
def test_no_assignment_is_better_at_fixed_costs(seed: int, num_levels: int, dearest: float):
    """Every weight tried on every level: the sum has one term a weight, so that is every assignment."""
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.choice(np.arange(-8, 8), num_levels, replace=False))
    costs = (dearest * rng.uniform(size=num_levels)).astype(np.float32)
    scales = (10.0 ** rng.uniform(-1, 1, 2)).astype(np.float32)
    weight = (rng.normal(size=(2, 8)) * 5 * scales[:, None]).astype(np.float32)
    found = quantize_to_levels(weight, scales, levels.tolist(), axis=0, costs=costs.tolist())
    terms = np.square(weight[..., None] - scales.astype(np.float64)[:, None, None] * levels) + costs
    chosen = np.take_along_axis(terms, np.searchsorted(levels, found)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, terms.min(axis=-1), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 20))
def test_bounds_never_descend(seed: int, num_levels: int):
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.choice(np.arange(-128, 128), num_levels, replace=False))
    costs = rng.exponential(100, num_levels).astype(np.float32)
    bounds = decision_bounds(np.array([1e-6, 0.1, 1.0, 1e6], np.float32), levels, costs)
    assert bounds.shape == (4, num_levels - 1)
    assert (np.diff(bounds, axis=1) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.01, 100), st.booleans())
def test_no_round_raises_the_lagrangian_and_the_last_is_real(seed: int, share: float, refit: bool):
    weight = random_weight(seed)
    scales = weight_scales(weight, axis=0)
    start = cluster_weight(weight, scales, axis=0, num_steps=12, num_of_iteration=0)
    price = share * start.error / weight.size
    found = price_levels(weight, scales, np.array(start.levels), price=price, refit_scales=refit)
    assert found.lagrangians[0] == pytest.approx(lagrangian(weight, start.quantized, scales, price), rel=1e-5)
    assert (np.diff(found.lagrangians) <= 1e-9 * found.lagrangians[0]).all()
    again = quantize_to_levels(weight, found.scales, found.levels.tolist(), axis=0, costs=found.costs.tolist())
    assert lagrangian(weight, again, found.scales, price) <= found.lagrangians[-1] * (1 + 1e-5)
    if not refit:
        np.testing.assert_array_equal(found.scales, scales)


def test_a_weight_of_zero_is_the_clustering_of_today():
    weight = random_weight(0)
    plain = cluster_weight(weight, weight_scales(weight, axis=0), axis=0, num_steps=8)
    off = priced(weight, 0.0)
    np.testing.assert_array_equal(off.quantized, plain.quantized)
    assert (off.levels, off.error, off.costs) == (plain.levels, plain.error, ())


@pytest.mark.parametrize("num_of_iteration", [0, 2])
@pytest.mark.parametrize("seed", range(8))
def test_the_more_entropy_weighs_the_less_of_it_is_left(seed: int, num_of_iteration: int):
    weight = np.random.default_rng(seed).standard_t(4, (8, 250)).astype(np.float32)
    found = [priced(weight, w, 16, num_of_iteration=num_of_iteration) for w in (0.0, 2.0, 8.0, 64.0)]
    entropies = [entropy_bits(each.quantized) for each in found]
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[-1] < 0.7 * entropies[0]
    assert [each.error for each in found] == sorted(each.error for each in found)


def test_it_beats_fewer_levels_of_the_same_entropy():
    weight = np.random.default_rng(1).standard_t(4, (16, 500)).astype(np.float32)
    plain = [priced(weight, 0.0, num_steps) for num_steps in range(8, 33)]
    aware = priced(weight, 8.0, 32)
    reached = [each for each in plain if entropy_bits(each.quantized) <= entropy_bits(aware.quantized)]
    nearest = max(reached, key=lambda each: entropy_bits(each.quantized))
    assert aware.error < 0.9 * nearest.error


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([2, 5, 32, 256]), st.floats(0, 1000), st.sampled_from([None, 0, 1]), st.integers(0, 2))
def test_levels_costs_and_scales_alone_give_the_assignment_back(seed, num_steps, entropy_weight, axis, iterations):
    weight = random_weight(seed)
    found = cluster_weight(
        weight,
        weight_scales(weight, axis=axis),
        axis=axis,
        num_steps=num_steps,
        num_of_iteration=iterations,
        entropy_weight=entropy_weight,
    )
    again = quantize_to_levels(weight, found.scales, found.levels, axis=axis, costs=found.costs)
    np.testing.assert_array_equal(again, found.quantized)
    assert found.levels == tuple(np.unique(found.quantized).tolist())
    assert len(found.costs) in (0, len(found.levels))


def test_a_weight_without_error_or_of_zeros_stays_as_it_is():
    for weight in (np.zeros((3, 7), np.float32), np.full((3, 7), 0.5, np.float32)):
        found = cluster_weight(weight, weight_scales(weight, axis=0), axis=0, num_steps=2, entropy_weight=5.0)
        plain = cluster_weight(weight, weight_scales(weight, axis=0), axis=0, num_steps=2)
        np.testing.assert_array_equal(found.quantized, plain.quantized)


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_an_entropy_weight_out_of_range_is_refused(bad: float):
    with pytest.raises(ParameterError, match="entropy_weight"):
        priced(random_weight(0), bad)


def test_importance_and_entropy_weight_together_are_refused():
    with pytest.raises(ParameterError, match="not both"):
        priced(random_weight(0), 1.0, importance=np.ones((1, 60)))


@pytest.mark.parametrize("costs", [[1.0], [1.0, np.inf], [np.nan, 0.0]])
def test_costs_that_do_not_fit_the_levels_are_refused(costs):
    with pytest.raises(ParameterError, match="Costs"):
        quantize_to_levels(np.ones((1, 3)), np.ones(1, np.float32), [0, 1], axis=0, costs=costs)
