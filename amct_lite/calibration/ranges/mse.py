"""mse: the range with the least expected squared quantization error, both ends searched.

Source: the problem is that of Banner et al. 2019, "Post-training 4-bit quantization of convolution networks for
rapid-deployment", arXiv 1810.05723, section 3, solved on the histogram itself in place of a distribution fitted to it.
A first guess weighs the exact error of what is cut off against scale**2 / 12 for what is kept (Bennett's
approximation); the closed form of the error then refines the best of the guess and of other algorithms' ranges.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from amct_lite.calibration.ranges.ifmr import IfmrParameters, ifmr_candidates
from amct_lite.calibration.ranges.minmax import minmax
from amct_lite.calibration.ranges.parameters import NoParameters, read_parameters
from amct_lite.calibration.ranges.percentile import percentile_range
from amct_lite.calibration.ranges.squared_error import SquaredError
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange

__all__ = ["mse"]

# Shares of the extremes that the first guess tries: from all down to 1 / 128, eight to an octave.
GUESSED_SHARES = 2.0 ** (-np.arange(57) / 8.0)

# The guess is off by less than an eighth of an octave; each round of refinement divides what is left by 4.
FIRST_RATIO = 2.0 ** (1 / 16)
ROUNDS = 4

# Percentiles whose ranges are measured too, beside IFMR's candidates.
PERCENTILES = (0.999, 0.9999, 0.99999)


def mse(
    snapshot: HistogramSnapshot,
    *,
    num_bits: int = 8,
    with_offset: bool = True,
    params: Mapping[str, Any] | None = None,
) -> ClipRange:
    """Searches the range with the least mean squared quantization error.

    Args:
        snapshot: What calibration saw.
        num_bits: Width of a level.
        with_offset: Whether the grid may have an offset.
        params: There are none.

    Returns:
        The range. By the histogram it is at least as good as those of minmax, of IFMR with its defaults, and of the
        percentiles 99.9%, 99.99% and 99.999%.

    Raises:
        ParameterError: A parameter is given.

    Example:
        >>> from amct_lite.calibration.histogram import Histogram
        >>> histogram = Histogram()
        >>> histogram.update(np.random.default_rng(0).normal(size=10_000))
        >>> found = mse(histogram.snapshot(), num_bits=4)
        >>> -3.5 < found.low < -2.2 and 2.2 < found.high < 3.5
        True
    """
    read_parameters(NoParameters, "mse", params)
    error = SquaredError(snapshot, num_bits=num_bits, with_offset=with_offset)
    whole = minmax(snapshot)
    candidates = [
        whole,
        _guess(error, whole, num_bits=num_bits, with_offset=with_offset, num_values=int(snapshot.counts.sum())),
        *(percentile_range(snapshot, share, share) for share in PERCENTILES),
        *ifmr_candidates(snapshot, IfmrParameters(), with_offset=with_offset),
    ]
    best, ratio = candidates[0], FIRST_RATIO
    for _ in range(ROUNDS):
        errors = error.of_ranges(candidates)
        best = candidates[int(np.argmin(errors))]
        candidates = [best, *_neighbours(best, ratio, with_offset=with_offset)]
        ratio **= 0.25
    return candidates[int(np.argmin(error.of_ranges(candidates)))]


def _guess(error: SquaredError, whole: ClipRange, *, num_bits: int, with_offset: bool, num_values: int) -> ClipRange:
    if with_offset:
        lows, highs = (np.unique(end * GUESSED_SHARES) for end in (whole.low, whole.high))
        cut = error.clipped_below(lows)[:, None] + error.clipped_above(highs)
        scales = (highs - lows[:, None]) / (2**num_bits - 1)
    else:
        thresholds = max(-whole.low, whole.high) * GUESSED_SHARES
        lows, highs = np.maximum(whole.low, -thresholds), np.minimum(whole.high, thresholds)
        cut = error.clipped_below(lows) + error.clipped_above(highs)
        scales = thresholds / (2 ** (num_bits - 1) - 0.5)
    best = np.unravel_index(int(np.argmin(cut + num_values * scales**2 / 12.0)), cut.shape)
    return ClipRange(float(lows[best[0]]), float(highs[best[-1]]))


def _neighbours(clip: ClipRange, ratio: float, *, with_offset: bool) -> list[ClipRange]:
    """Ranges whose ends are up to two steps off, together where the grid is symmetric."""
    steps = [ratio**power for power in (-2, -1, 0, 1, 2)]
    if not with_offset:
        return [ClipRange(step * clip.low, step * clip.high) for step in steps]
    lows = steps if clip.low < 0.0 else [1.0]
    highs = steps if clip.high > 0.0 else [1.0]
    return [ClipRange(low * clip.low, high * clip.high) for low, high in product(lows, highs)]
