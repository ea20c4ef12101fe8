"""IFMR, AMCT's default for activations: percentiles, then a search around them for the least squared error.

AMCT keeps every calibration value and quantizes them all for each candidate. Here a histogram stands for
them, with the values of a bin spread evenly over it, for which the squared error has a closed form; so it
also holds for grids finer than the bins. Source: AMCT's algorithm description of IFMR; parameters as in its
`activation_quant_params`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.errors import ParameterError
from amct_lite.types import ClipRange, Grid
from amct_lite.uniform.grid import grid_from_range

__all__ = ["IfmrParameters", "ifmr"]

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
            value = getattr(self, name)
            if not (_is_number(value) and 0.5 < value <= 1.0):
                raise _refusal(name, "a float in the range (0.5, 1]", value)
        pair = self.search_range
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))):
            raise _refusal("search_range", "a pair of floats", pair)
        start, end = pair
        if not 0.0 < start < end < math.inf:
            raise _refusal("search_range", "a pair of floats with 0 < start < end", pair)
        if not (_is_number(self.search_step) and 0.0 < self.search_step <= end - start + 1e-6):
            raise _refusal("search_step", f"a float in the range (0, {end - start:g}]", self.search_step)

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
    given = dict(params or {})
    if unknown := sorted(set(given) - {field.name for field in fields(IfmrParameters)}):
        raise ParameterError(f"The range algorithm ifmr has no parameter {', '.join(map(repr, unknown))}.")
    settings = IfmrParameters(**given)
    high = max(_extreme(snapshot, settings.max_percentile, largest=True), 0.0)
    low = min(_extreme(snapshot, settings.min_percentile, largest=False), 0.0)
    best, best_loss = ClipRange(low, high), math.inf
    edges, density = snapshot.edges, snapshot.counts / snapshot.width
    for ratio in settings.ratios:
        candidate = ClipRange(low if with_offset else ratio * low, ratio * high)
        grid = grid_from_range(candidate, num_bits=num_bits, with_offset=with_offset)
        loss = float(np.sum(density * np.diff(_error_integral(edges, grid))))
        if loss < best_loss:
            best, best_loss = candidate, loss
    return best


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


def _error_integral(x: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.float64]:
    """An antiderivative of the squared error (x - x')**2 of quantizing x.

    Within the grid each step adds scale**3 / 12, and the part of a step reached so far d**3 / 3, where d is
    the distance to the nearest level; beyond its ends the error is the distance to the end level.
    """
    first, last = grid.q_min - grid.offset, grid.q_max - grid.offset
    position = x / grid.scale
    inside = np.clip(position, first, last)
    nearest = np.rint(inside)
    partly = inside - nearest
    beyond = position - inside
    # Products, because numpy's general power takes ten times as long.
    integral = nearest / 12.0 + (partly * partly * partly + beyond * beyond * beyond) / 3.0
    return np.asarray(integral * grid.scale**3)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _refusal(name: str, wanted: str, got: object) -> ParameterError:
    return ParameterError(f"The {name!r} parameter of ifmr must be {wanted}. Got {got!r} instead.")
