"""IFMR, AMCT's default for activations: percentiles, then a search around them for the least squared error.

AMCT keeps every calibration value and quantizes them all for each candidate. Here a histogram stands for them, for
which the squared error has a closed form. Source: AMCT's algorithm description of IFMR; parameters as in its
`activation_quant_params`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from amct_lite.calibration.ranges.parameters import check_number, is_number, read_parameters, refusal
from amct_lite.calibration.ranges.percentile import percentile_range
from amct_lite.calibration.ranges.squared_error import SquaredError
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange

__all__ = ["IfmrParameters", "ifmr", "ifmr_candidates"]

# Config files hold float32, in which (1.3 - 0.7) / 0.01 can come out a little below 60; the end still counts.
STEP_TOLERANCE = 1e-4


@dataclass(frozen=True)
class IfmrParameters:
    """The parameters of IFMR, with AMCT's defaults.

    Attributes:
        max_percentile: Share of the values that lie at or below the first guess of the maximum, in (0.5, 1].
        min_percentile: Share of the values that lie at or above the first guess of the minimum, in (0.5, 1].
        search_range: The candidates' first and last ratio to the first guess, 0 < first < last.
        search_step: Step between ratios, in (0, last - first].
    """

    max_percentile: float = 0.999999
    min_percentile: float = 0.999999
    search_range: tuple[float, float] = (0.7, 1.3)
    search_step: float = 0.01

    def __post_init__(self) -> None:
        for name in ("max_percentile", "min_percentile"):
            check_number("ifmr", name, getattr(self, name), 0.5, 1.0)
        pair = self.search_range
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_number, pair))):
            raise refusal("ifmr", "search_range", "a pair of floats", pair)
        start, end = pair
        if not 0.0 < start < end < math.inf:
            raise refusal("ifmr", "search_range", "a pair of floats with 0 < start < end", pair)
        if not (is_number(self.search_step) and 0.0 < self.search_step <= end - start + 1e-6):
            raise refusal("ifmr", "search_step", f"a float in the range (0, {end - start:g}]", self.search_step)

    @property
    def ratios(self) -> list[float]:
        """The candidates' ratios to the first guess, ascending."""
        start, end = self.search_range
        steps = int((end - start) / self.search_step + STEP_TOLERANCE)
        return [start + i * self.search_step for i in range(steps + 1)]


def ifmr(
    snapshot: HistogramSnapshot,
    *,
    num_bits: int = 8,
    with_offset: bool = True,
    params: Mapping[str, Any] | None = None,
) -> ClipRange:
    """Searches the clip range with the least mean squared quantization error.

    With offset the maximum is searched and the minimum stays at its percentile; without, both move together.

    Args:
        snapshot: What calibration saw.
        num_bits: Width of a level.
        with_offset: Whether the grid may have an offset.
        params: Any of the fields of IfmrParameters.

    Returns:
        The range; the first of the best candidates.

    Raises:
        ParameterError: A parameter is unknown or out of its range.

    Example:
        >>> from amct_lite.calibration.histogram import Histogram
        >>> histogram = Histogram()
        >>> histogram.update(np.linspace(0.0, 1.0, 1000))
        >>> 0.99 < ifmr(histogram.snapshot()).high < 1.01
        True
    """
    candidates = ifmr_candidates(snapshot, read_parameters(IfmrParameters, "ifmr", params), with_offset=with_offset)
    errors = SquaredError(snapshot, num_bits=num_bits, with_offset=with_offset).of_ranges(candidates)
    return candidates[int(np.argmin(errors))]


def ifmr_candidates(snapshot: HistogramSnapshot, settings: IfmrParameters, *, with_offset: bool) -> list[ClipRange]:
    """The ranges that IFMR chooses from."""
    first = percentile_range(snapshot, settings.min_percentile, settings.max_percentile)
    return [ClipRange(first.low if with_offset else ratio * first.low, ratio * first.high) for ratio in settings.ratios]
