"""Cuts a long sorted array into cells, fine where a quantizer needs them fine, whatever the values' scale."""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.segment_costs import Points

__all__ = ["cell_starts", "points_of_runs", "union_of_bounds"]

Float64Array = npt.NDArray[np.float64]
SortedArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

# Ranks at which the density is looked at.
NUM_KNOTS = 2048

# Where a cell would hold no more values than this, each value gets a cell: in the tails a segment of the best
# quantizer has just a few values, and an even grid would throw them together.
FEW_VALUES = 4


def cell_starts(values: SortedArray, weights: Float64Array | None, num_cells: int) -> IndexArray:
    """Where the cells start.

    The best quantizer of many levels has levels with a density that goes with the cube root of the values' own
    (P. F. Panter and W. Dite, "Quantization distortion in pulse-count modulation", Proc. IRE 39, 1951), so the
    cells have it too. No stretch gets more cells than it has values: a far outlier makes its surroundings wide
    and empty, and takes one cell.

    Args:
        values: float32 or float64 array, shape (n,), ascending.
        weights: Shape (n,), positive, or None for all alike.
        num_cells: About how many cells.

    Returns:
        Shape (m,), strictly ascending from 0, m about num_cells at most. Equal values are in the same cell, and
        zeros have one of their own.

    Example:
        >>> cell_starts(np.array([-1.0, 0.0, 0.0, 2.0]), None, num_cells=8)
        array([0, 1, 3])
    """
    size = values.size
    # Towards the ends, where values get rare, the ranks get dense.
    near_end = 2 ** np.arange(int(size).bit_length() - 1)
    ranks = np.concatenate([near_end - 1, size - near_end, np.linspace(0, size - 1, NUM_KNOTS).astype(np.intp)])
    knots = np.unique(values[ranks])
    knot_starts = np.searchsorted(values, knots)
    counts = np.diff(knot_starts)
    mass = counts if weights is None else np.add.reduceat(weights, knot_starts)[:-1]
    wanted = np.cbrt(mass * np.square(np.diff(knots.astype(np.float64))))
    shares = _fill_up(wanted, counts, num_cells)
    reached = np.concatenate([[0.0], np.cumsum(shares)])
    edges = np.interp(np.arange(1.0, reached[-1]), reached, knots)
    starts = [np.searchsorted(values, np.append(edges, 0.0).astype(values.dtype)), _after_zeros(values)]
    few = counts <= FEW_VALUES * shares
    return union_of_bounds([0], *starts, _distinct_where(few, values, counts), [knot_starts[-1]])


def union_of_bounds(*bounds: npt.ArrayLike) -> IndexArray:
    """All bounds that are in any of the arrays, ascending; numpy's own union is slower by a multiple.

    Example:
        >>> union_of_bounds([0, 9], [4, 9])
        array([0, 4, 9])
    """
    ordered = np.sort(np.concatenate([np.asarray(part, dtype=np.intp) for part in bounds]))
    return np.asarray(ordered[np.append(True, ordered[1:] != ordered[:-1])])


def points_of_runs(values: SortedArray, weights: Float64Array | None, starts: IndexArray) -> Points:
    """Makes one point of each run of neighbouring values.

    Args:
        values: float32 or float64 array, shape (n,).
        weights: Shape (n,), or None for all alike.
        starts: Shape (m,), strictly ascending from 0.

    Returns:
        m points.

    Example:
        >>> points_of_runs(np.array([1.0, 2.0, 9.0]), None, np.array([0, 2]))
        Points(mass=array([2., 1.]), mean=array([1.5, 9. ]))
    """
    counts = np.diff(starts, append=values.size)
    mass = counts.astype(np.float64) if weights is None else np.add.reduceat(weights, starts)
    if values.dtype == np.float32:
        weighted = values if weights is None else values * weights
        return Points(mass, np.add.reduceat(weighted, starts, dtype=np.float64) / mass)
    # Differences to a value of the run itself keep the digits that sums of the values would lose; sums of
    # float32 values in float64 have digits to spare.
    anchor = values[starts]
    offset = values - np.repeat(anchor, counts)
    if weights is not None:
        offset *= weights
    return Points(mass, np.asarray(anchor + np.add.reduceat(offset, starts) / mass))


def _distinct_where(chosen: npt.NDArray[np.bool_], values: SortedArray, counts: IndexArray) -> IndexArray:
    """Where each of the distinct values of the chosen stretches starts; stretches have so many values each."""
    in_chosen = np.repeat(chosen, counts)
    in_chosen[1:] &= values[1 : in_chosen.size] != values[: in_chosen.size - 1]
    return np.flatnonzero(in_chosen)


def _after_zeros(values: SortedArray) -> IndexArray:
    """Where the values after the zeros start, shape (1,), or (0,) where there are none."""
    after = np.searchsorted(values, values.dtype.type(0.0), side="right")
    return np.array([after] if after < values.size else [], dtype=np.intp)


def _fill_up(wanted: Float64Array, most: IndexArray, total: int) -> Float64Array:
    """Shares out a total in proportion to what is wanted, with no share above its limit."""
    shares = most.astype(np.float64)
    free = wanted > 0.0
    while free.any():
        rest = total - float(shares[~free].sum())
        proposed = wanted[free] * (max(rest, 0.0) / wanted[free].sum())
        above = proposed > most[free]
        if not above.any():
            shares[free] = proposed
            break
        free[np.flatnonzero(free)[above]] = False
    return shares
