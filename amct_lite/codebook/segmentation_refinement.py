"""From a partition on coarse points to one on fine points, each bound moving within a band of candidates."""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.segment_costs import Points, merge_runs
from amct_lite.codebook.segmentation import Segmentation, best_segments, best_segments_beside_zero
from amct_lite.codebook.value_cells import cell_starts, union_of_bounds

__all__ = ["best_segments_of_many", "refine_bounds"]

Float64Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

# Points for the exact start. What it decides for good is how many levels each stretch gets; with half as many
# the error at 256 levels was 0.08 % above the best. Below 512 there is no time to save.
COARSE_POINTS_PER_SEGMENT = 16
FEWEST_COARSE_POINTS = 512

# How far a bound looks to each side, in places of a grid, and how much finer one grid is than that before it.
# So a bound can move by two places of the coarser grid at once.
REACH = 8
FINER = 4

# The places that a bound looks at; where none is better than its own, which is the first, it stays.
_MOVES = np.array(sorted(range(-REACH, REACH + 1), key=abs))

# Rounds on one grid. A bound that is still moving after these moves along a flat valley.
ROUNDS = 12


def best_segments_of_many(points: Points, num_segments: int, *, reserve_zero: bool = False) -> Segmentation:
    """Partitions points as best_segments does, in a time that hardly depends on how many there are.

    Neighbours are first merged into about a thousand coarse points, which are partitioned exactly. Then the
    bounds are refined: in each round all of them together take the best of REACH candidates to each side
    (again a dynamic programme, over candidates in place of points), until none moves, on finer and finer grids.
    Where two partitions that are far apart are about equally good, the coarse points decide between them.

    Args:
        points: n points.
        num_segments: How many segments, at least 1, that of 0 included.
        reserve_zero: Whether the level of one segment is fixed at 0.

    Returns:
        The partition. With reserve_zero the segment of 0 may be empty.

    Example:
        >>> points = Points(np.ones(10000), np.sqrt(np.arange(10000.0)))
        >>> best_segments_of_many(points, 3).bounds
        array([    0,  2140,  5604, 10000])
    """
    grids = _nested_grids(points, num_segments)
    partition = best_segments_beside_zero if reserve_zero else best_segments
    found = partition(merge_runs(points, grids[0]), num_segments)
    bounds = grids[0][found.bounds]
    for grid in grids[1:]:
        bounds = refine_bounds(points, bounds, grid, found.zero_segment)
    return Segmentation(bounds, found.zero_segment)


def refine_bounds(points: Points, bounds: IndexArray, grid: IndexArray, zero_segment: int | None) -> IndexArray:
    """Moves the bounds of a partition along a grid as long as the error falls.

    Args:
        points: n points.
        bounds: Shape (k + 1,), ascending from 0 to n, places of the grid.
        grid: Shape (m,), strictly ascending from 0 to n: where a bound may be.
        zero_segment: Which segment has its level at 0, or None.

    Returns:
        The bounds, shape (k + 1,).

    Example:
        >>> points = Points(np.ones(4), np.array([0.0, 1.0, 10.0, 12.0]))
        >>> refine_bounds(points, np.array([0, 1, 4]), np.arange(5), None)
        array([0, 2, 4])
    """
    for _ in range(ROUNDS):
        previous, bounds = bounds, _move_bounds(points, bounds, grid, zero_segment)
        if (bounds == previous).all():
            break
    return bounds


def _nested_grids(points: Points, num_segments: int) -> list[IndexArray]:
    """Bounds to choose from, from coarse ones to all of them; each grid has those of the one before."""
    size = points.mass.size
    num_cells = max(FEWEST_COARSE_POINTS, COARSE_POINTS_PER_SEGMENT * num_segments)
    grids = [np.array([0, size])]
    while num_cells * FINER <= size:
        grids.append(union_of_bounds(grids[-1], cell_starts(points.mean, points.mass, num_cells)))
        num_cells *= FINER
    return [*grids[1:], np.arange(size + 1)]


def _move_bounds(points: Points, bounds: IndexArray, grid: IndexArray, zero_segment: int | None) -> IndexArray:
    """Moves every inner bound, by up to REACH places of a grid, so that the error is the least.

    No bound moves beyond the middle of a segment, so each of them may move whatever the others do.
    """
    places = np.searchsorted(grid, bounds)
    middles = places[:-1] + np.diff(places) // 2
    lowest, highest = np.append(0, middles), np.append(middles, grid.size - 1)
    candidates = grid[np.clip(places[:, None] + _MOVES, lowest[:, None], highest[:, None])]
    candidates[0], candidates[-1] = 0, grid[-1]
    errors = _errors(points, candidates, grid[middles], bounds, zero_segment)
    choices = np.zeros(errors.shape[:2], dtype=np.intp)
    best = errors[0, 0]
    for segment in range(1, len(errors)):
        sums = best[:, None] + errors[segment]
        choices[segment] = np.argmin(sums, axis=0)
        best = sums.min(axis=0)
    moved = bounds.copy()
    column = 0
    for segment in range(len(errors) - 1, 0, -1):
        column = choices[segment, column]
        moved[segment] = candidates[segment, column]
    return moved


def _errors(
    points: Points, candidates: IndexArray, middles: IndexArray, bounds: IndexArray, zero_segment: int | None
) -> Float64Array:
    """What each segment costs with any of its starts and any of its ends, but for what is the same for all of them.

    Args:
        points: n points.
        candidates: Shape (k + 1, c): where each bound may be.
        middles: Shape (k,): between the starts and the ends of each segment.
        bounds: Shape (k + 1,): where the bounds are.
        zero_segment: Which segment has its level at 0, or None.

    Returns:
        float64 array, shape (k, c, c): by segment, start and end.
    """
    merged_at = union_of_bounds(candidates.reshape(-1), middles, bounds)
    merged = merge_runs(points, merged_at)
    places, middle = np.searchsorted(merged_at, candidates), np.searchsorted(merged_at, middles)
    # About the level that the segment has now, sums of squares lose no digits.
    levels = _levels(merged, np.searchsorted(merged_at, bounds))
    if zero_segment is not None:
        levels[zero_segment] = 0.0
    first, last = places[:-1].min(axis=1), places[1:].max(axis=1)
    index = first[:, None] + np.arange(int((last - first).max()))
    inside = np.minimum(index, merged.mass.size - 1)
    mass, offset = merged.mass[inside], merged.mean[inside] - levels[:, None]
    sums = np.stack([mass, mass * offset, mass * np.square(offset)])
    # From the middle outwards, so that no sum is a difference of larger ones.
    left, right = np.zeros((2, *sums.shape[:2], sums.shape[2] + 1))
    left[:, :, :-1] = np.cumsum((sums * (index < middle[:, None]))[:, :, ::-1], axis=2)[:, :, ::-1]
    right[:, :, 1:] = np.cumsum(sums * (index >= middle[:, None]), axis=2)
    at_start, at_end = places[:-1] - first[:, None], places[1:] - first[:, None]
    of_mass, moment, square = (
        np.take_along_axis(left, at_start[None], axis=2)[:, :, :, None]
        + np.take_along_axis(right, at_end[None], axis=2)[:, :, None, :]
    )
    errors: Float64Array = square - np.square(moment) / np.maximum(of_mass, np.finfo(np.float64).tiny)
    if zero_segment is not None:
        errors[zero_segment] = square[zero_segment]
    return errors


def _levels(points: Points, bounds: IndexArray) -> Float64Array:
    """The mean of each segment; 0 of one that is empty."""
    filled = np.diff(bounds) > 0
    levels = np.zeros(filled.size)
    levels[filled] = merge_runs(points, np.append(bounds[:-1][filled], bounds[-1])).mean
    return levels
