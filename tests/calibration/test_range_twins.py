"""calibration/ranges: each algorithm against its definition spelled out, and what must hold for any data."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.calibration.histogram import Histogram
from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.calibration.ranges.entropy import divergences, entropy
from amct_lite.calibration.ranges.hfmg import hfmg
from amct_lite.calibration.ranges.moving_average import moving_average
from amct_lite.calibration.ranges.mse import PERCENTILES, mse
from amct_lite.calibration.ranges.percentile import percentile
from amct_lite.calibration.ranges.squared_error import SquaredError
from amct_lite.errors import ParameterError
from amct_lite.types import ClipRange
from amct_lite.uniform.grid import dequantize, grid_from_range, quantize

RNG = np.random.default_rng(7)
DATA = {
    "normal": RNG.normal(0.3, 2.0, 20_000),
    "relu": np.maximum(RNG.normal(-0.5, 1.0, 20_000), 0.0),
    "laplace": RNG.laplace(-1.0, 1.0, 20_000),
    "heavy": RNG.standard_t(2, 20_000),
    "negative": -RNG.exponential(size=20_000),
}


def snapshot_of(values):
    histogram = Histogram()
    histogram.update(np.asarray(values, np.float32))
    return histogram.snapshot()


def dense_values(seen):
    """Values spread evenly over each bin, as the closed forms suppose."""
    inside = (np.arange(200) + 0.5) / 200
    edges = seen.edges[:-1][:, None]
    return (edges + inside * seen.width).reshape(-1), np.repeat(seen.counts / 200, 200)


@pytest.mark.parametrize("num_bits", [2, 4, 8, 12])
@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("data", DATA)
def test_squared_error_is_that_of_values_spread_over_their_bins(data, with_offset, num_bits):
    seen = snapshot_of(DATA[data]).coarsened(256)
    ranges = [ClipRange(share * min(seen.minimum, 0.0), share * seen.maximum) for share in (1.3, 1.0, 0.5, 0.1)]
    ranges += [ClipRange(min(seen.minimum, -0.1), 0.0), ClipRange(0.0, max(seen.maximum, 0.1))]
    values, weights = dense_values(seen)
    found = SquaredError(seen, num_bits=num_bits, with_offset=with_offset).of_ranges(ranges)
    for clip, error in zip(ranges, found, strict=True):
        grid = grid_from_range(clip, num_bits=num_bits, with_offset=with_offset)
        steps = np.clip(np.rint(values / grid.scale), grid.q_min - grid.offset, grid.q_max - grid.offset)
        assert error == pytest.approx(np.sum(weights * (values - steps * grid.scale) ** 2), rel=2e-2)


@pytest.mark.parametrize("data", DATA)
def test_what_is_cut_off_is_measured_exactly(data):
    seen = snapshot_of(DATA[data]).coarsened(64)
    values, weights = dense_values(seen)
    points = np.linspace(seen.minimum - 1.0, seen.maximum + 1.0, 23)
    error = SquaredError(seen, num_bits=8, with_offset=True)
    below, above = error.clipped_below(points), error.clipped_above(points)
    for index, point in enumerate(points):
        assert below[index] == pytest.approx(np.sum(weights * np.minimum(values - point, 0.0) ** 2), rel=1e-3, abs=1e-3)
        assert above[index] == pytest.approx(np.sum(weights * np.maximum(values - point, 0.0) ** 2), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("num_bits", [4, 6, 8])
@pytest.mark.parametrize("data", DATA)
def test_mse_is_as_good_as_a_search_of_all_pairs_of_ends(data, num_bits, with_offset):
    seen = snapshot_of(DATA[data])
    shares = 1.05 ** -np.arange(90.0)
    if with_offset:
        low, high = min(seen.minimum, 0.0), max(seen.maximum, 0.0)
        pairs = itertools.product(np.unique(shares * low), np.unique(shares * high))
    else:
        bound = max(-seen.minimum, seen.maximum)
        pairs = ((max(seen.minimum, -share * bound), min(seen.maximum, share * bound)) for share in shares)
    ranges = [ClipRange(min(float(low), 0.0), max(float(high), 0.0)) for low, high in pairs]
    error = SquaredError(seen, num_bits=num_bits, with_offset=with_offset)
    found = error.of_ranges([mse(seen, num_bits=num_bits, with_offset=with_offset)])[0]
    assert found <= 1.005 * error.of_ranges(ranges).min()


def divergence_spelled_out(seen, clip, num_bits, with_offset):
    """Bin by bin, with the reference's outliers on its ends, and each level's mass on its bins that hold something."""
    grid = grid_from_range(clip, num_bits=num_bits, with_offset=with_offset)
    centres = (np.arange(seen.counts.size) + seen.first_bin + 0.5) * seen.width
    levels = np.floor(centres / grid.scale + 0.5)
    first, last = grid.q_min - grid.offset, grid.q_max - grid.offset
    inside = [i for i in np.flatnonzero(seen.counts) if first <= levels[i] <= last]
    if not inside:
        return math.inf
    reference = {i: float(seen.counts[i]) for i in inside}
    quantized = {}
    for level in {levels[i] for i in inside}:
        members = [i for i in inside if levels[i] == level]
        quantized.update(dict.fromkeys(members, sum(seen.counts[i] for i in members) / len(members)))
    reference[inside[0]] += sum(seen.counts[i] for i in range(seen.counts.size) if levels[i] < first)
    reference[inside[-1]] += sum(seen.counts[i] for i in range(seen.counts.size) if levels[i] > last)
    p = np.array([*reference.values(), seen.zeros])
    q = np.array([*(quantized[i] for i in inside), seen.zeros])
    p, q = p[p > 0] / p.sum(), q[p > 0] / q.sum()
    return float(np.sum(p * np.log(p / q)))


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("num_bits", [4, 6])
@pytest.mark.parametrize("data", DATA)
def test_divergence_is_that_of_the_definition(data, num_bits, with_offset):
    seen = snapshot_of(DATA[data]).coarsened(512)
    low, high = min(seen.minimum, 0.0), max(seen.maximum, 0.0)
    ranges = [ClipRange(a * low, b * high) for a, b in itertools.product((1.0, 0.6, 0.2), (1.0, 0.5, 0.15))]
    found = divergences(seen, ranges, num_bits=num_bits, with_offset=with_offset)
    for clip, value in zip(ranges, found, strict=True):
        assert value == pytest.approx(divergence_spelled_out(seen, clip, num_bits, with_offset), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("num_zeros", [10_000, 1_000_000])
def test_zeros_do_not_move_the_range_of_entropy(num_zeros):
    values = RNG.exponential(size=20_000)
    sparse = entropy(snapshot_of(np.append(values, np.zeros(num_zeros))))
    dense = entropy(snapshot_of(values))
    assert sparse.low == dense.low == 0.0
    assert sparse.high == pytest.approx(dense.high, rel=0.1)


def test_entropy_cuts_off_what_a_few_outliers_widen():
    values = np.append(RNG.normal(size=100_000), [60.0, -80.0])
    clip = entropy(snapshot_of(values))
    assert -30.0 < clip.low < -3.0
    assert 3.0 < clip.high < 30.0


def test_entropy_keeps_all_where_levels_are_as_fine_as_bins():
    seen = snapshot_of(DATA["heavy"])
    assert entropy(seen, num_bits=16) == ClipRange(seen.minimum, seen.maximum)


def hfmg_spelled_out(values, num_bits, with_offset, num_of_bins):
    """The greedy search on sorted values: one more hundred-thousandth at the end that frees more bins."""
    seen = snapshot_of(values).coarsened(num_of_bins)
    low, high = min(seen.minimum, 0.0), max(seen.maximum, 0.0)
    bins = np.floor(np.sort(values.astype(np.float32)) / seen.width).astype(int)
    first, last = min(bins[0], 0), max(bins[-1], 0)
    measure = SquaredError(seen, num_bits=num_bits, with_offset=with_offset)
    start, stop, below, above = first, last + 1, 0, 0
    clip = ClipRange(low, high)
    error = measure.of_ranges([clip])[0]
    while stop - start > (last + 1 - first) / 4 and below + above < 100_000:
        step = values.size / 100_000
        new_start = max(bins[max(math.ceil((below + 1) * step) - 1, 0)], start)
        new_stop = min(bins[min(math.ceil(values.size - (above + 1) * step) - 1, values.size - 1)] + 1, stop)
        lower = new_start - start > stop - new_stop if with_offset else -start > stop
        if lower:
            start, below = new_start, below + 1
        else:
            stop, above = new_stop, above + 1
        narrower = ClipRange(max(low, min(start * seen.width, 0.0)), min(high, max(stop * seen.width, 0.0)))
        if narrower == clip:
            continue
        new_error = measure.of_ranges([narrower])[0]
        if new_error > error:
            break
        clip, error = narrower, new_error
    return clip


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("num_bits", [4, 8])
@pytest.mark.parametrize("data", ["normal", "laplace", "heavy"])
def test_hfmg_is_the_greedy_search_of_its_definition(data, num_bits, with_offset):
    values = DATA[data]
    found = hfmg(snapshot_of(values), num_bits=num_bits, with_offset=with_offset, params={"num_of_bins": 1024})
    assert found == hfmg_spelled_out(values, num_bits, with_offset, 1024)


@pytest.mark.parametrize("data", DATA)
def test_percentile_cuts_off_the_share_that_it_says(data):
    seen = snapshot_of(DATA[data])
    clip = percentile(seen, params={"max_percentile": 0.99, "min_percentile": 0.95})
    ordered = np.sort(DATA[data])
    assert clip.high == pytest.approx(max(ordered[-200], 0.0), abs=2 * seen.width)
    assert clip.low == pytest.approx(min(ordered[999], 0.0), abs=2 * seen.width)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 50)), min_size=1, max_size=20), st.floats(0.01, 1.0))
def test_moving_average_weighs_batches_by_their_age(pairs, weight):
    ranges = np.array([[low, low + length] for low, length in pairs])
    seen = dataclasses.replace(snapshot_of([0.0]), batch_ranges=ranges)
    clip = moving_average(seen, params={"averaging_constant": weight})
    shares = np.array([weight * (1 - weight) ** (len(pairs) - 1 - i) for i in range(len(pairs))])
    shares[0] = (1 - weight) ** (len(pairs) - 1)
    low, high = shares @ ranges
    assert clip.low == pytest.approx(min(low, 0.0), abs=1e-9)
    assert clip.high == pytest.approx(max(high, 0.0), abs=1e-9)


VALUES = st.lists(st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0.0 or abs(x) > 1e-3), min_size=1, max_size=200)


@given(VALUES, st.sampled_from([4, 5, 8]), st.booleans(), st.sampled_from(sorted(RANGE_ALGORITHMS)))
@settings(max_examples=150, deadline=None)
def test_ranges_hold_zero_and_scale_with_the_data(values, num_bits, with_offset, algorithm):
    choose = RANGE_ALGORITHMS[algorithm]
    clip = choose(snapshot_of(values), num_bits=num_bits, with_offset=with_offset, params={})
    assert clip.low <= 0.0 <= clip.high
    # A power of two scales bins and all arithmetic on them exactly.
    scaled = snapshot_of(np.asarray(values, np.float32) * 8)
    eightfold = choose(scaled, num_bits=num_bits, with_offset=with_offset, params={})
    assert eightfold == ClipRange(8 * clip.low, 8 * clip.high)


@given(VALUES, st.sampled_from([4, 8, 16]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_mse_is_never_worse_by_its_own_measure(values, num_bits, with_offset):
    seen = snapshot_of(values)
    error = SquaredError(seen, num_bits=num_bits, with_offset=with_offset)
    kind = {"num_bits": num_bits, "with_offset": with_offset}
    others = [RANGE_ALGORITHMS[name](seen, params={}, **kind) for name in ("minmax", "ifmr")]
    others += [percentile(seen, params={"max_percentile": s, "min_percentile": s}) for s in PERCENTILES]
    assert error.of_ranges([mse(seen, **kind)])[0] <= error.of_ranges(others).min()


@given(VALUES, st.integers(1, 64))
def test_coarsening_merges_bins_and_loses_nothing(values, num_bins):
    seen = snapshot_of(values)
    coarse = seen.coarsened(num_bins)
    assert coarse.total == seen.total
    assert max(coarse.first_bin + coarse.counts.size, 1) - min(coarse.first_bin, 0) <= max(num_bins, 2)
    again = np.repeat(coarse.edges[:-1], coarse.counts)
    exact = np.sort([x for x in np.asarray(values, np.float32).tolist() if x != 0.0])
    assert np.all(again <= exact)
    assert np.all(exact < again + coarse.width)


@pytest.mark.parametrize(
    ("algorithm", "name", "value"),
    [
        ("percentile", "max_percentile", 0.5),
        ("percentile", "min_percentile", "high"),
        ("moving_average", "averaging_constant", 0.0),
        ("moving_average", "averaging_constant", 1.5),
        ("hfmg", "num_of_bins", 1000),
        ("entropy", "num_of_bins", True),
    ],
)
def test_parameters_out_of_range_are_named(algorithm, name, value):
    with pytest.raises(ParameterError, match=rf"The '{name}' parameter of {algorithm} must be .* Got .* instead\."):
        RANGE_ALGORITHMS[algorithm](snapshot_of([1.0]), num_bits=8, with_offset=True, params={name: value})


def test_a_range_is_usable_on_the_values_it_came_from():
    values = DATA["heavy"].astype(np.float32)
    for name, choose in RANGE_ALGORITHMS.items():
        grid = grid_from_range(choose(snapshot_of(values), num_bits=8, with_offset=True, params={}), with_offset=True)
        decoded = dequantize(quantize(values, grid), grid)
        assert np.corrcoef(values, decoded)[0, 1] > 0.7, name
