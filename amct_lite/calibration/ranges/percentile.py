"""percentile: the range that holds all but a small share of the values at each end.

Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference", arXiv 2004.09602, section 3.3, where 99.99%
is the best of the percentiles for most networks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from amct_lite.calibration.ranges.parameters import check_number, read_parameters
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange

__all__ = ["PercentileParameters", "percentile", "percentile_range"]


@dataclass(frozen=True)
class PercentileParameters:
    """The parameters of percentile.

    Attributes:
        max_percentile: Share of the values that lie at or below the maximum, in (0.5, 1].
        min_percentile: Share of the values that lie at or above the minimum, in (0.5, 1].
    """

    max_percentile: float = 0.9999
    min_percentile: float = 0.9999

    def __post_init__(self) -> None:
        for name in ("max_percentile", "min_percentile"):
            check_number("percentile", name, getattr(self, name), 0.5, 1.0)


def percentile(
    snapshot: HistogramSnapshot,
    *,
    num_bits: int = 8,  # noqa: ARG001 - every range algorithm has the same parameters
    with_offset: bool = True,  # noqa: ARG001
    params: Mapping[str, Any] | None = None,
) -> ClipRange:
    """Takes a percentile at each end.

    Args:
        snapshot: What calibration saw.
        num_bits: Not used.
        with_offset: Not used.
        params: Any of the fields of PercentileParameters.

    Returns:
        The range, with 0 in it.

    Raises:
        ParameterError: A parameter is unknown or out of its range.

    Example:
        >>> from amct_lite.calibration.histogram import Histogram
        >>> histogram = Histogram()
        >>> histogram.update(np.append(np.linspace(0.0, 1.0, 999), 50.0))
        >>> 0.9 < percentile(histogram.snapshot(), params={"max_percentile": 0.99}).high < 1.1
        True
    """
    settings = read_parameters(PercentileParameters, "percentile", params)
    return percentile_range(snapshot, settings.min_percentile, settings.max_percentile)


def percentile_range(snapshot: HistogramSnapshot, min_percentile: float, max_percentile: float) -> ClipRange:
    """The range between two percentiles, widened to hold 0."""
    return ClipRange(
        min(_extreme(snapshot, min_percentile, largest=False), 0.0),
        max(_extreme(snapshot, max_percentile, largest=True), 0.0),
    )


def _extreme(snapshot: HistogramSnapshot, percentile: float, *, largest: bool) -> float:
    """The k-th largest (or smallest) value, k = N - floor(percentile * N), 1 for percentile 1.

    Within a bin the values are taken to be evenly spread; the first one is known exactly.
    """
    total = snapshot.total
    k = 1 if percentile == 1.0 else max(1, total - math.floor(percentile * total))
    if k == 1:
        return snapshot.maximum if largest else snapshot.minimum
    # The whole line as seen from the wanted end: counts of the bins beyond zero, the zeros, the other bins.
    side = 1 if largest else -1
    counts = snapshot.counts[::-side]
    numbers = np.arange(snapshot.first_bin, snapshot.first_bin + counts.size)[::-side]
    beyond_zero = numbers >= 0 if largest else numbers < 0
    num_beyond = int(counts[beyond_zero].sum())
    if num_beyond < k <= num_beyond + snapshot.zeros:
        return 0.0
    rank = k if k <= num_beyond else k - snapshot.zeros
    cumulative = np.cumsum(counts)
    index = int(np.searchsorted(cumulative, rank))
    into_bin = (rank - (cumulative[index] - counts[index]) - 0.5) / counts[index]
    outer_edge = (numbers[index] + (1 if largest else 0)) * snapshot.width
    value = float(outer_edge - side * into_bin * snapshot.width)
    return min(max(value, snapshot.minimum), snapshot.maximum)
