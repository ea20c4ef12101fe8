"""The best choice of K real levels for weighted values: non-uniform quantization that no start can spoil."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.nearest_codes import round_down
from amct_lite.codebook.segment_costs import merge_runs
from amct_lite.codebook.segmentation import best_segments, best_segments_beside_zero
from amct_lite.codebook.segmentation_refinement import best_segments_of_many
from amct_lite.codebook.value_bins import BinnedValues, bin_values
from amct_lite.codebook.value_cells import cell_starts, points_of_runs
from amct_lite.codebook.weighted_values import SortedArray, checked_values, sorted_values
from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["FloatLevels", "best_float_levels"]

Float64Array = npt.NDArray[np.float64]

MAX_LEVELS = 256

# Up to so many distinct values the choice is exact; 256 levels of them take a quarter of a second.
MAX_EXACT_VALUES = 4096

# Cells for more values than that. At 256 levels this leaves 64 for a segment; a bound that is off by half a
# cell at most costs about 1 / (2 * 64**2), a hundredth of a percent.
NUM_CELLS = 16384

# So many values of float32 are not sorted but thrown into bins: some 10000 of 11 bits for up to 64 levels, 50000 of 13
# bits for 256, more than the cells that are made of them.
FEWEST_BINNED_VALUES = 1 << 16
FEWEST_BIN_BITS, MORE_BIN_BITS = 11, 5

# Bins must not be wider than what levels tell apart: of the error no more than this share may lie within them.
MOST_INNER_ERROR = 0.01

# Values whose error is summed at a time: what is worked on stays in the cache.
BLOCK = 16384


@dataclass(frozen=True)
class FloatLevels:
    """A choice of levels.

    Attributes:
        levels: float64 array, shape (k,), ascending and distinct.
        error: Sum of weight * (value - nearest level)**2; of very many values some millionths too high, since a bin of
            them counts for one level.
    """

    levels: Float64Array
    error: float


def best_float_levels(
    values: FloatArray, num_levels: int, *, weights: FloatArray | None = None, reserve_zero: bool = False
) -> FloatLevels:
    """Chooses the levels that represent values with the least weighted squared error.

    For up to 4096 distinct values the choice is exact. Of more, about 16000 cells of neighbouring values are
    made, and each goes to one level as a whole; benchmarks/float_levels.py has what that costs. From 65536 values on
    they need not be sorted for it: bins finer than the cells do as well.

    Args:
        values: Float array, any shape.
        num_levels: How many levels, 1 to 256.
        weights: How much a squared error counts, for example the diagonal of a Hessian; broadcastable to values,
            non-negative. None, or zeros only, counts all alike.
        reserve_zero: Whether one level has to be exactly 0; the others are the best beside it.

    Returns:
        At most num_levels levels; just the distinct values with a weight where these are no more than that.

    Raises:
        ParameterError: There is no value, a value or weight is not finite, a weight is negative or does not fit
            the values, or num_levels is out of its range.

    Example:
        >>> best_float_levels(np.array([0.0, 1.0, 10.0, 12.0]), 2)
        FloatLevels(levels=array([ 0.5, 11. ]), error=2.5)
        >>> best_float_levels(np.array([0.0, 1.0, 10.0, 12.0]), 2, reserve_zero=True)
        FloatLevels(levels=array([ 0., 11.]), error=3.0)
    """
    if not 1 <= num_levels <= MAX_LEVELS:
        raise ParameterError(
            f"The 'num_levels' parameter must be an int in the range [1, {MAX_LEVELS}]. Got {num_levels} instead."
        )
    given, masses = checked_values(values, weights)
    binned = _binned(given, masses, num_levels)
    if binned is not None:
        found = _of_ordered(binned.points.mean, binned.points.mass, num_levels, reserve_zero)
        error = found.error + binned.inner_error
        if binned.most_inner_error <= MOST_INNER_ERROR * error:
            return FloatLevels(found.levels, error)
    return _of_ordered(*sorted_values(given, masses), num_levels, reserve_zero)


def _binned(values: SortedArray, weights: Float64Array | None, num_levels: int) -> BinnedValues | None:
    """Values in fine bins where that spares time: where they are many, and many of them different."""
    if values.size < FEWEST_BINNED_VALUES or values.dtype != np.float32:
        return None
    num_bits = max(FEWEST_BIN_BITS, MORE_BIN_BITS + (num_levels - 1).bit_length())
    binned = bin_values(values.astype(np.float32, copy=False), weights, num_bits)
    return binned if binned is not None and binned.points.mass.size > MAX_EXACT_VALUES else None


def _of_ordered(ordered: SortedArray, masses: Float64Array | None, num_levels: int, reserve_zero: bool) -> FloatLevels:
    # Powers of two change no digit, and with magnitudes of about 1 no square overflows or vanishes.
    value_exponent = weight_exponent = 0
    if ordered.dtype == np.float64:
        value_exponent = int(np.frexp(max(-ordered[0], ordered[-1]))[1])
        ordered = np.ldexp(ordered, -value_exponent)
    if masses is not None:
        weight_exponent = int(np.frexp(masses.max())[1])
        masses = np.ldexp(masses, -weight_exponent)
    levels = _choose(ordered, masses, num_levels, reserve_zero)
    error = _squared_error(ordered, masses, levels)
    with np.errstate(over="ignore", under="ignore"):
        return FloatLevels(
            levels=np.ldexp(levels, value_exponent), error=float(np.ldexp(error, 2 * value_exponent + weight_exponent))
        )


def _choose(values: SortedArray, weights: Float64Array | None, num_levels: int, reserve_zero: bool) -> Float64Array:
    begins_run = values[1:] != values[:-1]
    many = np.count_nonzero(begins_run) >= MAX_EXACT_VALUES
    starts = cell_starts(values, weights, NUM_CELLS) if many else np.append(0, np.flatnonzero(begins_run) + 1)
    points = points_of_runs(values, weights, starts)
    if many:
        found = best_segments_of_many(points, num_levels, reserve_zero=reserve_zero)
    else:
        found = (best_segments_beside_zero if reserve_zero else best_segments)(points, num_levels)
    filled = np.diff(found.bounds) > 0
    means = merge_runs(points, np.append(found.bounds[:-1][filled], starts.size)).mean
    if found.zero_segment is not None:
        means = np.append(means[np.flatnonzero(filled) != found.zero_segment], 0.0)
    return np.unique(means)


def _squared_error(values: SortedArray, weights: Float64Array | None, levels: Float64Array) -> float:
    halfway: SortedArray = levels[:-1] / 2.0 + levels[1:] / 2.0
    if values.dtype == np.float32:
        halfway = round_down(levels[:-1] / 2.0 + levels[1:] / 2.0)
    bounds = [0, *np.searchsorted(values, halfway, side="right").tolist(), values.size]
    error = 0.0
    for level, first, last in zip(levels, bounds, bounds[1:], strict=False):
        for start in range(first, last, BLOCK):
            stop = min(start + BLOCK, last)
            squares = np.square(np.subtract(values[start:stop], level, dtype=np.float64))
            if weights is not None:
                squares *= weights[start:stop]
            # Not a dot product: BLAS would wake threads for it, which cost more than they save.
            error += float(squares.sum())
    return error
