"""calibration/histogram.py: the state depends on the data only."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from amct_lite.calibration.histogram import MIN_EXPONENT, NUM_BINS, Histogram
from amct_lite.errors import ParameterError

anything = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(-10, 10, width=32),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 8191.0, 8192.0, -8192.0, 2.0**100, -(2.0**-100)]),
)
batches = st.lists(arrays(st.sampled_from([np.float32, np.float64]), st.integers(0, 8), elements=anything), max_size=8)


def histogram_of(*values):
    histogram = Histogram()
    for batch in values:
        histogram.update(batch)
    return histogram


def state(histogram):
    return {name: array.tobytes() for name, array in histogram.to_arrays().items()}


@settings(max_examples=300, deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_splits_orders_and_merges_give_the_same_state(parts, random):
    expected = state(histogram_of(*parts))
    everything = [np.array([value]) for part in parts for value in part]
    random.shuffle(everything)
    assert state(histogram_of(*everything)) == expected
    assert state(histogram_of(np.concatenate([np.zeros(0), *parts]))) == expected

    shards = [histogram_of(part) for part in parts]
    random.shuffle(shards)
    merged = Histogram()
    for shard in shards:
        merged.merge(shard)
    assert state(merged) == expected
    assert state(Histogram.from_arrays(merged.to_arrays())) == expected


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_any_float64_is_counted_where_it_belongs(values):
    histogram = histogram_of(values)
    seen = histogram.snapshot()
    assert seen.total == values.size
    assert (seen.minimum, seen.maximum) == (values.min(), values.max())
    assert seen.zeros == np.count_nonzero(values == 0)
    assert seen.counts.size <= NUM_BINS
    expected = {}
    for value in values[values != 0]:
        ratio = math.ldexp(abs(value), -histogram.exponent)
        number = math.floor(ratio) if value > 0 else -max(1, math.ceil(ratio))
        expected[number] = expected.get(number, 0) + 1
    found = {seen.first_bin + int(i): int(seen.counts[i]) for i in np.flatnonzero(seen.counts)}
    assert found == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, bool])
def test_every_numeric_type_is_counted_as_numpy_counts(dtype):
    values = np.random.default_rng(0).normal(0, 40, (3, 5, 7000)).astype(dtype)
    seen = histogram_of(values).snapshot()
    numbers = values.astype(np.float64).ravel()
    expected, _ = np.histogram(numbers[numbers != 0], bins=seen.edges)
    np.testing.assert_array_equal(seen.counts, expected)
    assert seen.zeros == np.count_nonzero(numbers == 0)


def test_width_is_the_least_that_fits():
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = rng.normal(rng.normal(), 1, 10) * 2.0 ** rng.integers(-20, 20)
        histogram = histogram_of(values)
        low, high = min(values.min(), 0), max(values.max(), 0)

        def bins(exponent, low=low, high=high):
            return math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) + 1

        assert bins(histogram.exponent) <= NUM_BINS < bins(histogram.exponent - 1)


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_zeros_are_counted_apart(value):
    seen = histogram_of(np.full(5, value, np.float32)).snapshot()
    assert (seen.zeros, seen.counts.size, seen.total) == (5, 0, 5)
    assert (seen.minimum, seen.maximum) == (0.0, 0.0)
    assert not math.copysign(1, seen.minimum) < 0
    assert seen.edges.tolist() == [0.0]


def test_equal_values_share_a_bin_that_contains_them():
    seen = histogram_of(np.full((4, 4), 3.25, np.float32)).snapshot()
    assert seen.counts.tolist() == [16]
    assert seen.edges[0] <= 3.25 < seen.edges[1]
    assert 3.25 - seen.centres[0] == pytest.approx(0, abs=seen.width)


def test_subnormal_values_are_counted():
    histogram = histogram_of(np.array([1e-45, -1e-45, 0.0], np.float32))
    assert histogram.exponent == MIN_EXPONENT
    assert histogram.snapshot().first_bin == -1
    assert histogram.snapshot().counts.tolist() == [1, 1]


def test_tiny_negative_values_stay_below_zero_beside_large_ones():
    for dtype in (np.float32, np.float64):
        seen = histogram_of(np.array([-np.finfo(dtype).smallest_subnormal, 1e30], dtype)).snapshot()
        assert seen.first_bin == -1
        assert seen.counts[0] == 1


def test_values_that_are_not_finite_are_refused_and_leave_the_state():
    histogram = histogram_of(np.arange(5.0))
    before = state(histogram)
    with pytest.raises(ParameterError, match="2 NaN and 1 infinite values among the 5"):
        histogram.update(np.array([[1e9, np.nan, np.nan, np.inf, 0.0]]))
    assert state(histogram) == before


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([1j])])
def test_values_that_are_not_real_numbers_are_refused(values):
    with pytest.raises(ParameterError, match="real numbers"):
        Histogram().update(values)


def test_a_histogram_of_nothing_has_a_snapshot_of_nothing():
    empty = histogram_of(np.zeros((0, 3), np.float32))
    assert empty.total == 0
    seen = empty.snapshot()
    assert (seen.total, seen.counts.size, seen.minimum, seen.maximum) == (0, 0, 0.0, 0.0)
    assert state(Histogram.from_arrays(empty.to_arrays())) == state(Histogram())


@pytest.mark.parametrize("broken", [{}, {"counts": np.ones(5)}])
def test_foreign_arrays_are_refused(broken):
    with pytest.raises(ParameterError):
        Histogram.from_arrays(broken)
    with pytest.raises(ParameterError):
        Histogram.from_arrays({**histogram_of(np.ones(3)).to_arrays(), "integers": np.array([0, NUM_BINS, 0])})


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=4), elements=st.floats(-5, 5, width=32)))
def test_memory_layout_does_not_matter(values):
    expected = state(histogram_of(values))
    assert state(histogram_of(values.T)) == expected
    assert state(histogram_of(np.asfortranarray(values))) == expected
    assert state(histogram_of(values[::-1, ::-1])) == expected


def test_large_batches_are_counted_in_chunks():
    values = np.random.default_rng(2).normal(size=300_001).astype(np.float32)
    seen = histogram_of(values).snapshot()
    np.testing.assert_array_equal(seen.counts, np.histogram(values.astype(np.float64), bins=seen.edges)[0])
