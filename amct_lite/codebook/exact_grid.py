"""The exact best choice of K integer levels for a weighted histogram, by dynamic programming.

In one dimension an optimal clustering consists of contiguous segments (W. D. Fisher, "On grouping for maximum
homogeneity", JASA 53, 1958), so the best K levels follow from the best K - 1 of every prefix:
best_k(j) = min over i of best_{k-1}(i) + cost(i, j). Nothing is random and nothing depends on a start.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import IntArray

__all__ = ["Levels", "best_levels", "best_levels_of_cells"]

Float64Array = npt.NDArray[np.float64]

# A share of the heaviest mass that counts as none: close to it a mass and its moment lose their digits.
NO_MASS = 1e-290

# Rows of the cost matrix worked on at a time: few enough to skip most of its empty triangle and to stay in
# cache, enough to make numpy's cost per call small.
BLOCK = 128


@dataclass(frozen=True)
class Levels:
    """A choice of levels.

    Attributes:
        levels: int64 array, ascending and distinct.
        error: Sum of weight * (point - nearest level)**2.
    """

    levels: npt.NDArray[np.int64]
    error: float


def best_levels(points: IntArray, weights: Float64Array, num_levels: int, *, reserved: int | None = None) -> Levels:
    """Chooses the integer levels that represent weighted integer points with the least squared error.

    Args:
        points: Integer array, shape (n,), strictly ascending. Up to a few hundred points.
        weights: float64 array, shape (n,), non-negative: how much an error at each point counts.
        num_levels: How many levels to keep, at least 1.
        reserved: One of the points that must be among the levels; the others are the best beside it.

    Returns:
        The levels, at most num_levels; just the points with a weight, and the reserved one, where these are no more
        than that. Among equally good choices, the one with the lowest segment bounds.

    Raises:
        ParameterError: Points are not ascending, a weight is negative or not finite, none is positive, or the
            reserved level is none of the points.

    Example:
        >>> best_levels(np.array([0, 1, 10, 12]), np.array([5.0, 1.0, 1.0, 1.0]), 2)
        Levels(levels=array([ 0, 11]), error=3.0)
        >>> best_levels(np.array([0, 1, 10, 12]), np.array([5.0, 1.0, 1.0, 1.0]), 2, reserved=1)
        Levels(levels=array([ 1, 11]), error=7.0)
    """
    if points.ndim != 1 or points.shape != weights.shape or (np.diff(points) <= 0).any():
        raise ParameterError("Points must be strictly ascending, with one weight each.")
    mass = weights.astype(np.float64)
    # Counted from the reserved level, the segment that has it costs nothing for lying there.
    origin = 0 if reserved is None else reserved
    where = (points - origin).astype(np.float64)
    lowest, highest = points[0] - origin, points[-1] - origin
    if reserved is None:
        anchored = mass
    elif reserved in points:
        # So heavy that the mean of whatever shares its segment lies within a quarter of it, and rounds to it.
        anchored = mass + np.where(points == reserved, 4.0 * (highest - lowest + 1) * mass.sum(), 0.0)
    else:
        raise ParameterError(f"The 'reserved' parameter must be one of the points. Got {reserved} instead.")
    levels = best_levels_of_cells(anchored, mass * where, num_levels, lowest=lowest, highest=highest)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2.0, where)]
    return Levels(levels + origin, float(np.sum(mass * np.square(where - nearest))))


def best_levels_of_cells(
    mass: Float64Array, moment: Float64Array, num_levels: int, *, lowest: int, highest: int
) -> npt.NDArray[np.int64]:
    """Chooses integer levels for cells of real values, each known by its mass and its first moment.

    Each cell goes to one level as a whole. The second moments add the same to every choice, so they are not
    needed.

    Args:
        mass: float64 array, shape (n,): sum of the weights in each of n consecutive intervals.
        moment: float64 array, shape (n,): sum of weight * value.
        num_levels: How many levels to keep, at least 1.
        lowest: The lowest level allowed.
        highest: The highest level allowed.

    Returns:
        Levels, int64, ascending and distinct, at most num_levels.

    Raises:
        ParameterError: A mass is negative or not finite, none is positive, or num_levels is less than 1.

    Example:
        >>> best_levels_of_cells(np.ones(3), np.array([0.4, 9.0, 11.2]), 2, lowest=0, highest=127)
        array([ 0, 10])
    """
    if num_levels < 1:
        raise ParameterError(f"The 'num_levels' parameter must be an int of at least 1. Got {num_levels} instead.")
    if not (np.isfinite(mass).all() and np.isfinite(moment).all() and (mass >= 0.0).all() and mass.any()):
        raise ParameterError("Weights must be finite and not negative, and one of them must be positive.")
    # A heaviest mass of about 1 keeps the sums below from overflowing; a power of two keeps them exact.
    unit_exponent = -int(np.frexp(mass.max())[1])
    mass, moment = np.ldexp(mass, unit_exponent), np.ldexp(moment, unit_exponent)
    occupied = mass > NO_MASS
    mass, moment = mass[occupied], moment[occupied]
    alone = np.clip(np.rint(moment / mass), lowest, highest)
    if mass.size <= num_levels:
        return np.unique(alone).astype(np.int64)
    costs, levels = _segment_costs(mass, moment, alone)
    starts = _best_starts(costs, num_levels)
    return np.unique(levels[np.append(starts[1:], mass.size) - 1, starts]).astype(np.int64)


def _segment_costs(mass: Float64Array, moment: Float64Array, alone: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Finds the best level of every segment and what it costs.

    Args:
        mass: Shape (n,), positive.
        moment: Shape (n,).
        alone: Shape (n,), the best level of each cell, between which the best level of a segment lies.

    Returns:
        Costs without the constant second moment, and levels; both (n, n), indexed [last, first] and with cost
        infinite for last < first.
    """
    masses = np.concatenate([[0.0], np.cumsum(mass)])
    moments = np.concatenate([[0.0], np.cumsum(moment)])
    total = masses[1:, None] - masses[:-1]
    first_moment = moments[1:, None] - moments[:-1]
    # Beside a far heavier one, a cell's mass can vanish in the cumulative sums; any level in reach will do.
    np.maximum(total, np.finfo(np.float64).tiny, out=total)
    with np.errstate(over="ignore"):
        levels = first_moment / total
    np.rint(levels, out=levels)
    np.clip(levels, alone, alone[:, None], out=levels)
    costs = levels * total
    first_moment *= 2.0
    costs -= first_moment
    costs *= levels
    cells = np.arange(mass.size)
    costs[cells[:, None] < cells] = np.inf
    return costs, levels


def _best_starts(costs: Float64Array, num_segments: int) -> npt.NDArray[np.intp]:
    """Cuts the cells into the segments whose costs have the least sum.

    Args:
        costs: Shape (n, n), indexed [last, first].
        num_segments: How many, less than n.

    Returns:
        The first cell of every segment, shape (num_segments,).
    """
    n = costs.shape[0]
    rows = np.arange(n)
    choice = np.zeros((num_segments, n), dtype=np.intp)
    best = costs[:, 0].copy()
    work = np.empty(BLOCK * n)
    for k in range(1, num_segments):
        previous, best = best, np.full(n, np.inf)
        # With k segments before it, a segment starts at cell k or later, never after the block's last row.
        for top in range(k, n, BLOCK):
            bottom = min(top + BLOCK, n)
            sums = work[: (bottom - top) * (bottom - k)].reshape(bottom - top, bottom - k)
            np.add(costs[top:bottom, k:bottom], previous[k - 1 : bottom - 1], out=sums)
            starts = np.argmin(sums, axis=1, out=choice[k, top:bottom])
            best[top:bottom] = sums[rows[: bottom - top], starts]
            starts += k
    first_cells = np.empty(num_segments, dtype=np.intp)
    last = n - 1
    for k in range(num_segments - 1, -1, -1):
        first_cells[k] = choice[k, last]
        last = first_cells[k] - 1
    return first_cells
