"""calibration/ranges: a contract for every algorithm, and IFMR against its definition on raw data."""

import math

import numpy as np
import pytest

from amct_lite.calibration.histogram import Histogram
from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.calibration.ranges.ifmr import IfmrParameters, ifmr
from amct_lite.errors import ParameterError
from amct_lite.types import ClipRange
from amct_lite.uniform.grid import dequantize, grid_from_range, quantize

# Algorithms whose range never leaves that of the data; IFMR may widen it up to its search_range.
CLIPPING = {"minmax"}

RNG = np.random.default_rng(0)
DATA = {
    "normal": RNG.normal(0.3, 2.0, 30_000),
    "relu": np.maximum(RNG.normal(0.0, 1.0, 30_000), 0.0),
    "laplace": RNG.laplace(-1.0, 1.0, 30_000),
    "outlier": np.append(RNG.normal(size=30_000), 50.0),
    "negative": -RNG.exponential(size=30_000),
    "zeros": np.zeros(100),
    "nothing": np.zeros(0),
    "equal": np.full(100, 3.7),
    "single": np.array([-2.5]),
    "tiny": RNG.normal(size=1000) * 1e-30,
    "pixels": RNG.integers(0, 256, 30_000).astype(np.float64),
}


def snapshot_of(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.update(batch.astype(np.float32))
    return histogram.snapshot()


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("algorithm", RANGE_ALGORITHMS)
def test_contract_of_range_algorithms(algorithm, data, with_offset):
    choose, seen = RANGE_ALGORITHMS[algorithm], snapshot_of(DATA[data])
    clip = choose(seen, num_bits=8, with_offset=with_offset, params={})
    assert math.isfinite(clip.low)
    assert math.isfinite(clip.high)
    assert clip.low <= 0.0 <= clip.high
    slack = 1.0 if algorithm in CLIPPING else 1.3 + 1e-9
    assert clip.low >= slack * min(seen.minimum, 0.0)
    assert clip.high <= slack * max(seen.maximum, 0.0)
    grid_from_range(clip, with_offset=with_offset)

    shuffled = np.random.default_rng(1).permutation(DATA[data])
    assert choose(snapshot_of(*np.array_split(shuffled, 7)), num_bits=8, with_offset=with_offset, params={}) == clip


@pytest.mark.parametrize("algorithm", RANGE_ALGORITHMS)
def test_unknown_parameters_are_refused(algorithm):
    with pytest.raises(ParameterError, match="nonsense"):
        RANGE_ALGORITHMS[algorithm](snapshot_of(DATA["normal"]), num_bits=8, with_offset=True, params={"nonsense": 1})


def test_minmax_contains_zero():
    clip = RANGE_ALGORITHMS["minmax"](snapshot_of(DATA["equal"]), num_bits=8, with_offset=True, params={})
    assert clip == ClipRange(0.0, float(np.float32(3.7)))


def mean_square_error(values, clip, num_bits, with_offset):
    grid = grid_from_range(clip, num_bits=num_bits, with_offset=with_offset)
    return float(np.mean(np.square(values - dequantize(quantize(values, grid), grid).astype(np.float64))))


def ifmr_on_raw_data(values, num_bits, with_offset, percentile=0.999999):
    ordered = np.sort(values)
    k = 1 if percentile == 1 else max(1, values.size - math.floor(percentile * values.size))
    low, high = min(ordered[k - 1], 0.0), max(ordered[-k], 0.0)
    candidates = [ClipRange(low if with_offset else low * ratio, high * ratio) for ratio in 0.7 + 0.01 * np.arange(61)]
    return min(mean_square_error(values, clip, num_bits, with_offset) for clip in candidates)


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize(("num_bits", "percentile"), [(8, 0.999999), (8, 0.99), (4, 0.999999), (8, 1.0)])
@pytest.mark.parametrize("data", ["normal", "relu", "laplace", "outlier", "negative"])
def test_ifmr_on_the_histogram_is_as_good_as_on_raw_data(data, num_bits, percentile, with_offset):
    values = DATA[data].astype(np.float32)
    params = {"max_percentile": percentile, "min_percentile": percentile}
    clip = ifmr(snapshot_of(values), num_bits=num_bits, with_offset=with_offset, params=params)
    found = mean_square_error(values, clip, num_bits, with_offset)
    assert found <= 1.03 * ifmr_on_raw_data(values, num_bits, with_offset, percentile)


@pytest.mark.parametrize("percentile", [0.6, 0.9, 0.99, 0.9999, 0.999999, 1.0])
@pytest.mark.parametrize("data", ["normal", "relu", "laplace", "negative", "pixels"])
def test_percentiles_are_found_to_a_bin(data, percentile):
    values = np.sort(DATA[data].astype(np.float32))
    seen = snapshot_of(values)
    params = {
        "max_percentile": percentile,
        "min_percentile": percentile,
        "search_range": (1 - 1e-9, 1 + 1e-9),
        "search_step": 2e-9,
    }
    clip = ifmr(seen, num_bits=8, with_offset=True, params=params)
    k = 1 if percentile == 1.0 else max(1, values.size - math.floor(percentile * values.size))
    assert clip.high == pytest.approx(max(values[-k], 0.0), abs=1.01 * seen.width)
    assert clip.low == pytest.approx(min(values[k - 1], 0.0), abs=1.01 * seen.width)


def test_default_candidates_are_those_of_amct_also_in_float32():
    ratios = IfmrParameters().ratios
    assert len(ratios) == 61
    assert (ratios[0], ratios[-1]) == (0.7, pytest.approx(1.3))
    start, end, step = (float(np.float32(number)) for number in (0.7, 1.3, 0.01))
    assert len(IfmrParameters(search_range=(start, end), search_step=step).ratios) == 61


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_percentile", 0.5),
        ("max_percentile", 1.1),
        ("min_percentile", "0.9"),
        ("min_percentile", math.nan),
        ("search_range", (1.3, 0.7)),
        ("search_range", (0.0, 1.3)),
        ("search_range", 0.7),
        ("search_range", (0.7, "x")),
        ("search_step", 0.0),
        ("search_step", 0.7),
        ("search_step", True),
    ],
)
def test_parameters_out_of_range_are_named_with_their_value(name, value):
    with pytest.raises(ParameterError, match=rf"The '{name}' parameter of ifmr must be .* Got .* instead\."):
        ifmr(snapshot_of(DATA["normal"]), params={name: value})
