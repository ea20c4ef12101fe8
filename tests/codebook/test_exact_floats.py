"""codebook/exact_floats.py and what it is made of, against brute force and against scikit-learn's KMeans."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from amct_lite.codebook import exact_floats
from amct_lite.codebook.exact_floats import best_float_levels
from amct_lite.codebook.nearest_codes import FEWEST_FOR_TABLE, nearest_codes
from amct_lite.codebook.segment_costs import Points, SegmentCosts
from amct_lite.codebook.value_bins import bin_values
from amct_lite.errors import ParameterError

VALUES = st.floats(-100.0, 100.0).map(lambda value: round(value, 3))
WEIGHTS = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
PAIRS = st.lists(st.tuples(VALUES, WEIGHTS), min_size=1, max_size=9)


def squared_error(values, weights, levels):
    return float(np.sum(weights * np.square(values[:, None] - np.asarray(levels)).min(axis=1)))


def brute_force(values, weights, num_levels, reserve_zero=False):
    """The least error over all partitions of the sorted values into contiguous segments."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    num_free = num_levels - reserve_zero
    best = squared_error(values, weights, [0.0]) if reserve_zero else np.inf
    # With 0 reserved it may serve any run of values, also an empty one: that makes one segment more.
    for num_segments in range(1, num_free + reserve_zero + 1):
        for cuts in itertools.combinations(range(1, values.size), num_segments - 1):
            pieces = itertools.pairwise([0, *cuts, values.size])
            means = [np.average(values[a:b], weights=weights[a:b]) for a, b in pieces if weights[a:b].any()]
            choices = itertools.combinations(means, min(num_free, len(means))) if reserve_zero else [means]
            for levels in choices:
                best = min(best, squared_error(values, weights, [*levels, *([0.0] if reserve_zero else [])]))
    return best


def arrays_of(pairs):
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    return values, weights if weights.any() else np.ones_like(weights)


def student_t(size, seed=0):
    return (np.random.default_rng(seed).standard_t(5, size) * 0.02).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.integers(1, 4), st.booleans())
def test_no_partition_is_better(pairs, num_levels, reserve_zero):
    values, weights = arrays_of(pairs)
    found = best_float_levels(values, num_levels, weights=weights, reserve_zero=reserve_zero)
    assert 1 <= found.levels.size <= num_levels
    assert (np.diff(found.levels) > 0).all()
    assert 0.0 in found.levels or not reserve_zero
    assert found.error == pytest.approx(squared_error(values, weights, found.levels), rel=1e-9, abs=1e-9)
    assert found.error == pytest.approx(brute_force(values, weights, num_levels, reserve_zero), rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.integers(1, 4), st.integers(-200, 200))
def test_a_power_of_two_changes_no_digit(pairs, num_levels, exponent):
    values, weights = arrays_of(pairs)
    found = best_float_levels(values, num_levels, weights=weights)
    scaled = best_float_levels(np.ldexp(values, exponent), num_levels, weights=np.ldexp(weights, -exponent))
    np.testing.assert_array_equal(scaled.levels, np.ldexp(found.levels, exponent))
    assert scaled.error == np.ldexp(found.error, exponent)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(VALUES, st.integers(1, 4)), min_size=1, max_size=9), st.integers(1, 4))
def test_integer_weights_are_repeated_values(pairs, num_levels):
    values, repeats = (np.array(column) for column in zip(*pairs, strict=True))
    weighted = best_float_levels(values, num_levels, weights=repeats.astype(float))
    repeated = best_float_levels(np.repeat(values, repeats), num_levels)
    assert weighted.error == pytest.approx(repeated.error, rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.integers(1, 4))
def test_a_reserved_zero_costs_at_most_one_level(pairs, num_levels):
    values, weights = arrays_of(pairs)
    free = best_float_levels(values, num_levels, weights=weights).error
    beside_zero = best_float_levels(values, num_levels, weights=weights, reserve_zero=True).error
    with_one_more = best_float_levels(values, num_levels + 1, weights=weights, reserve_zero=True).error
    assert free <= beside_zero * (1 + 1e-9) + 1e-9
    assert with_one_more <= free * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("num_levels", [2, 4, 8])
@pytest.mark.parametrize("size", [1000, 6000])
def test_kmeans_is_never_better(size, num_levels):
    values = student_t(size).astype(np.float64)
    weights = np.random.default_rng(1).exponential(size=size)
    ours = best_float_levels(values, num_levels, weights=weights)
    theirs = KMeans(num_levels, n_init=1, random_state=0).fit(values[:, None], sample_weight=weights)
    error = squared_error(values, weights, theirs.cluster_centers_.ravel())
    assert ours.error <= error * (1 + 1e-9 if size <= exact_floats.MAX_EXACT_VALUES else 1.0002)


@pytest.mark.parametrize("reserve_zero", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_levels", [4, 16, 48])
def test_cells_cost_next_to_nothing(monkeypatch, num_levels, weighted, reserve_zero):
    values = student_t(8000, seed=num_levels)
    weights = np.random.default_rng(1).exponential(size=values.size) if weighted else None
    found = best_float_levels(values, num_levels, weights=weights, reserve_zero=reserve_zero)
    monkeypatch.setattr(exact_floats, "MAX_EXACT_VALUES", values.size)
    exact = best_float_levels(values, num_levels, weights=weights, reserve_zero=reserve_zero)
    assert exact.error * (1 - 1e-12) <= found.error <= exact.error * 1.001
    assert 0.0 in found.levels or not reserve_zero


@pytest.mark.parametrize("outliers", [[200.0], [-200.0], [2.0, 2e2, 2e4, -2e6, 2e30]])
def test_far_outliers_take_a_level_each_and_spoil_no_other(outliers):
    values = student_t(20000)
    alone = best_float_levels(values, 16)
    both = best_float_levels(np.append(values, outliers), 16 + len(outliers))
    assert both.error <= alone.error * 1.0002
    assert set(outliers) <= set(both.levels.tolist())


def test_close_values_far_from_zero_are_told_apart():
    values = 1e15 + np.array([0.0, 1.0, 8.0, 9.0, 90.0])
    found = best_float_levels(values, 3)
    assert (found.levels - 1e15).tolist() == [0.5, 8.5, 90.0]
    assert found.error == 1.0


@pytest.mark.parametrize("heavy", [1e30, 1e-30])
def test_a_weight_of_another_magnitude_hides_no_other(heavy):
    values = np.array([0.0, 1.0, 2.0, 10.0, 11.0])
    found = best_float_levels(values, 3, weights=np.array([heavy, 1.0, 1.0, 1.0, 1.0]))
    expected = [0.0, 1.5, 10.5] if heavy > 1.0 else [1.0, 2.0, 10.5]
    np.testing.assert_allclose(found.levels, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("magnitude", ["smallest_subnormal", "max"])
def test_ends_of_a_type_are_like_any_other_value(dtype, magnitude):
    unit = getattr(np.finfo(dtype), magnitude)
    found = best_float_levels(np.array([-unit, 0, unit, unit], dtype=dtype), 3)
    assert found.levels.tolist() == [-float(unit), 0.0, float(unit)]
    assert found.error == 0.0


def test_fewer_distinct_values_than_levels_are_kept():
    values = np.array([[3.5, -1.0], [3.5, 3.5]])
    assert best_float_levels(values, 16).levels.tolist() == [-1.0, 3.5]
    assert best_float_levels(values, 16, reserve_zero=True).levels.tolist() == [-1.0, 0.0, 3.5]
    assert best_float_levels(np.full(100000, 0.1, dtype=np.float32), 4).levels.tolist() == [float(np.float32(0.1))]


def test_many_equal_values_stay_together():
    values = np.concatenate([student_t(20000), np.zeros(50000, dtype=np.float32)])
    found = best_float_levels(values, 16)
    assert found.levels[np.argmin(np.abs(found.levels))] == pytest.approx(0.0, abs=1e-3)
    assert found.error <= best_float_levels(values, 16, reserve_zero=True).error * (1 + 1e-9)


def test_weights_of_zeros_only_count_all_alike():
    values = np.array([0.0, 1.0, 5.0])
    assert best_float_levels(values, 2, weights=np.zeros(3)).levels.tolist() == [0.5, 5.0]


def test_weights_are_broadcast():
    values = np.array([[0.0, 1.0], [2.0, 9.0]])
    by_column = best_float_levels(values, 1, weights=np.array([1.0, 0.0]))
    assert by_column.levels.tolist() == [1.0]


@pytest.mark.parametrize(
    ("values", "num_levels", "weights"),
    [
        ([], 1, None),
        ([np.nan, 1.0], 1, None),
        ([np.inf, 1.0], 1, None),
        ([0.0, np.nan], 1, [1.0, 0.0]),
        ([0.0, 1.0], 0, None),
        ([0.0, 1.0], 257, None),
        ([0.0, 1.0], 1, [1.0, -1.0]),
        ([0.0, 1.0], 1, [1.0, np.inf]),
        ([0.0, 1.0], 1, [1.0, 1.0, 1.0]),
    ],
)
def test_unusable_input_is_refused(values, num_levels, weights):
    with pytest.raises(ParameterError):
        best_float_levels(np.array(values), num_levels, weights=None if weights is None else np.array(weights))


def test_segment_costs_are_those_of_two_passes():
    rng = np.random.default_rng(0)
    points = Points(rng.exponential(size=21), np.sort(rng.standard_t(2, size=21)))
    first, last = np.array(list(itertools.combinations_with_replacement(range(22), 2))).T
    costs = SegmentCosts(points)
    for cost, a, b in zip(costs.about_mean(first, last), first, last, strict=True):
        mass, mean = points.mass[a:b], points.mean[a:b]
        level = np.average(mean, weights=mass) if a < b else 0.0
        assert cost == pytest.approx(float(np.sum(mass * np.square(mean - level))), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("num_levels", [1, 2, 16, 256])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_are_those_of_the_nearest_level(dtype, scale, num_levels):
    values = (np.random.default_rng(2).standard_normal((4, FEWEST_FOR_TABLE)) * scale).astype(dtype)
    levels = np.sort(np.random.default_rng(3).standard_normal(num_levels)) * scale
    # Values exactly halfway, and levels far closer to each other than the table tells apart.
    levels[: num_levels // 2] = levels[0] * (1 + 1e-5 * np.arange(num_levels // 2, 0, -1))
    levels.sort()
    halfway = levels[:-1] / 2.0 + levels[1:] / 2.0
    values[0, : num_levels - 1] = halfway
    codes = nearest_codes(values, levels)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.searchsorted(halfway, values.astype(np.float64)))


def test_levels_beyond_the_range_of_float32_are_allowed_and_unusable_ones_refused():
    values = np.full(FEWEST_FOR_TABLE, np.finfo(np.float32).max)
    assert (nearest_codes(values, np.array([-1e300, 1e300])) == 1).all()
    assert (nearest_codes(values, np.array([1.0, 1e300])) == 0).all()
    with pytest.raises(ParameterError):
        nearest_codes(np.array([np.nan]), np.array([0.0]))
    for levels in ([], [1.0, 0.0], [0.0, 0.0], [np.inf], np.arange(257.0)):
        with pytest.raises(ParameterError):
            nearest_codes(values, np.array(levels))


# Many values, which go into bins


@pytest.mark.parametrize("reserve_zero", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_levels", [4, 16, 256])
def test_bins_cost_next_to_nothing(monkeypatch, num_levels, weighted, reserve_zero):
    values = student_t(100_000, seed=num_levels)
    values[::7] = 0.0
    weights = np.random.default_rng(1).exponential(size=values.size) if weighted else None
    found = best_float_levels(values, num_levels, weights=weights, reserve_zero=reserve_zero)
    monkeypatch.setattr(exact_floats, "FEWEST_BINNED_VALUES", values.size + 1)
    ordered = best_float_levels(values, num_levels, weights=weights, reserve_zero=reserve_zero)
    assert found.error <= ordered.error * 1.0005
    each = np.ones(values.size) if weights is None else weights
    assert found.error == pytest.approx(squared_error(values, each, found.levels), rel=1e-5)
    assert 0.0 in found.levels or not reserve_zero


@pytest.mark.parametrize("values", [1000 + student_t(100_000), np.append(student_t(100_000), np.float32(1e30))])
def test_where_bins_are_too_wide_values_are_sorted(monkeypatch, values):
    found = best_float_levels(values, 16)
    monkeypatch.setattr(exact_floats, "FEWEST_BINNED_VALUES", values.size + 1)
    assert np.array_equal(found.levels, best_float_levels(values, 16).levels)


@pytest.mark.parametrize("num_bits", [1, 11])
def test_bins_hold_all_that_was_thrown_into_them(num_bits):
    values = student_t(1000)
    values[:10] = -0.0
    weights = np.random.default_rng(2).exponential(size=values.size)
    binned = bin_values(values, weights, num_bits)
    mass, mean = binned.points
    assert (np.diff(mean) > 0.0).all()
    assert mass[mean == 0.0] == pytest.approx(weights[:10].sum())
    assert mass.sum() == pytest.approx(weights.sum())
    assert mass @ mean == pytest.approx(weights @ values.astype(np.float64))
    square = weights @ np.square(values.astype(np.float64))
    assert mass @ np.square(mean) + binned.inner_error == pytest.approx(square, rel=1e-9)
    assert binned.inner_error <= binned.most_inner_error


def test_bins_are_no_more_than_they_save():
    assert bin_values(student_t(1000), None, 23) is None


@pytest.mark.parametrize("unit", [1e-305, 1e305])
def test_weights_of_any_magnitude_choose_the_same_levels(unit):
    values, weights = student_t(100_000), np.random.default_rng(3).uniform(0.5, 2.0, 100_000)
    found = best_float_levels(values, 16, weights=weights * unit)
    np.testing.assert_allclose(found.levels, best_float_levels(values, 16, weights=weights).levels, atol=2e-4)
