"""HFMG, AMCT's other algorithm for activations: values are given up from both ends while the squared error falls.

Source: AMCT's algorithm description of HFMG, and its parameter in `activation_quant_params`. AMCT lays its bins over
the range of its first batch; here they are the calibration histogram's, merged in pairs until there are at most
`num_of_bins`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.ranges.parameters import check_one_of, read_parameters
from amct_lite.calibration.ranges.squared_error import SquaredError
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange

__all__ = ["HfmgParameters", "hfmg"]

# Each step gives up this share of the values at one end, and at least a quarter of the bins is kept: AMCT's constants.
STEP_SHARE = 1.0 / 100_000
LEAST_BINS_SHARE = 0.25

# Candidates measured at a time: most searches end early.
CHUNK_SIZE = 64


@dataclass(frozen=True)
class HfmgParameters:
    """The parameter of HFMG, with AMCT's default.

    Attributes:
        num_of_bins: At most this many bins over the range: 1024, 2048, 4096 or 8192.
    """

    num_of_bins: int = 4096

    def __post_init__(self) -> None:
        check_one_of("hfmg", "num_of_bins", self.num_of_bins, (1024, 2048, 4096, 8192))


def hfmg(
    snapshot: HistogramSnapshot,
    *,
    num_bits: int = 8,
    with_offset: bool = True,
    params: Mapping[str, Any] | None = None,
) -> ClipRange:
    """Narrows the range greedily until the squared error rises.

    Args:
        snapshot: What calibration saw.
        num_bits: Width of a level.
        with_offset: Whether the grid may have an offset.
        params: Any of the fields of HfmgParameters.

    Returns:
        The range.

    Raises:
        ParameterError: A parameter is unknown or out of its range.

    Example:
        >>> from amct_lite.calibration.histogram import Histogram
        >>> histogram = Histogram()
        >>> histogram.update(np.append(np.random.default_rng(0).normal(size=1_000_000), 60.0))
        >>> hfmg(histogram.snapshot()).high < 30.0
        True
    """
    settings = read_parameters(HfmgParameters, "hfmg", params)
    seen = snapshot.coarsened(settings.num_of_bins)
    error = SquaredError(seen, num_bits=num_bits, with_offset=with_offset)
    path = _path(seen, with_offset=with_offset)
    best = next(path)
    while True:
        chunk = [best, *islice(path, CHUNK_SIZE)]
        errors = error.of_ranges(chunk)
        rising = np.flatnonzero(np.diff(errors) > 0.0)
        if rising.size or len(chunk) == 1:
            return chunk[rising[0]] if rising.size else best
        best = chunk[-1]


def _path(snapshot: HistogramSnapshot, *, with_offset: bool) -> Iterator[ClipRange]:
    """The whole range, then narrower and narrower ones, with 0 in all of them.

    Each step gives up values at the end where that frees more bins; a symmetric grid only gains by its wider end.
    """
    low, high = min(snapshot.minimum, 0.0), max(snapshot.maximum, 0.0)
    if not snapshot.counts.size:
        yield ClipRange(0.0, 0.0)
        return
    edges, counts = _line(snapshot)
    cumulative = np.cumsum(counts)
    step = STEP_SHARE * float(cumulative[-1])
    start, stop = 0, counts.size
    steps_below = steps_above = 0
    clip = ClipRange(low, high)
    yield clip
    while stop - start > LEAST_BINS_SHARE * counts.size and (steps_below + steps_above) * STEP_SHARE < 1.0:
        # The first bin, and the one behind the last, that stay once the values of one more step are gone.
        next_start = max(int(cumulative.searchsorted((steps_below + 1) * step)), start)
        next_stop = min(int(cumulative.searchsorted(cumulative[-1] - (steps_above + 1) * step)) + 1, stop)
        below = next_start - start > stop - next_stop if with_offset else -edges[start] > edges[stop]
        # Steps that free nothing are skipped: a bin may hold many steps' values.
        if below:
            skipped = int(cumulative[start] / step) - 2 if next_start == start else 0
            steps_below, start = max(steps_below + 1, skipped), next_start
        else:
            skipped = int((cumulative[-1] - cumulative[stop - 2]) / step) - 2 if next_stop == stop else 0
            steps_above, stop = max(steps_above + 1, skipped), next_stop
        narrower = ClipRange(max(low, min(float(edges[start]), 0.0)), min(high, max(float(edges[stop]), 0.0)))
        if narrower != clip:
            clip = narrower
            yield clip


def _line(snapshot: HistogramSnapshot) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Edges and counts of all bins from the lowest to the highest value, 0 included; exact zeros in bin 0."""
    first = min(snapshot.first_bin, 0)
    stop = max(snapshot.first_bin + snapshot.counts.size, 1)
    counts = np.zeros(stop - first, np.int64)
    offset = snapshot.first_bin - first
    counts[offset : offset + snapshot.counts.size] = snapshot.counts
    counts[-first] += snapshot.zeros
    return np.arange(first, stop + 1, dtype=np.float64) * snapshot.width, counts
