"""From a partition on coarse points to one on fine points, each bound moving within a band of candidates."""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.segment_costs import Points, SegmentCosts, merge_runs
from amct_lite.codebook.segmentation import Segmentation, best_segments, best_segments_beside_zero
from amct_lite.codebook.value_cells import cell_starts, union_of_bounds

__all__ = ["best_segments_of_many", "refine_bounds"]

IndexArray = npt.NDArray[np.intp]

# Points for the exact start. What it decides for good is how many levels each stretch gets; with half as many
# the error at 256 levels was 0.08 % above the best. Below 512 there is no time to save.
COARSE_POINTS_PER_SEGMENT = 16
FEWEST_COARSE_POINTS = 512

# How far a bound looks to each side, in places of a grid, and how much finer one grid is than that before it.
# So a bound can move by two places of the coarser grid at once.
REACH = 8
FINER = 4

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
    """Moves every inner bound, by up to REACH places of a grid, so that the error is the least."""
    num_segments = bounds.size - 1
    places = np.searchsorted(grid, bounds)[:, None] + np.arange(-REACH, REACH + 1)
    candidates = grid[np.clip(places, 0, grid.size - 1)]
    candidates[0], candidates[-1] = 0, grid[-1]
    merged_at = union_of_bounds(candidates.reshape(-1))
    places = np.searchsorted(merged_at, candidates)
    costs = SegmentCosts(merge_runs(points, merged_at))
    first, last = np.broadcast_arrays(places[:-1, :, None], places[1:, None, :])
    backwards = first > last
    first = np.minimum(first, last)
    errors = costs.about_mean(first, last)
    if zero_segment is not None:
        errors[zero_segment] = costs.about_zero(first[zero_segment], last[zero_segment])
    errors[backwards] = np.inf

    # The bound stays where nothing else is better: with its own place listed first, argmin prefers it.
    order = np.argsort(np.abs(np.arange(-REACH, REACH + 1)), kind="stable")
    errors = errors[:, order][:, :, order]
    choices = np.zeros((num_segments, order.size), dtype=np.intp)
    best = errors[0, 0]
    for segment in range(1, num_segments):
        sums = best[:, None] + errors[segment]
        choices[segment] = np.argmin(sums, axis=0)
        best = np.take_along_axis(sums, choices[segment][None], axis=0)[0]
    moved = bounds.copy()
    column = 0
    for segment in range(num_segments - 1, 0, -1):
        column = choices[segment, column]
        moved[segment] = candidates[segment, order[column]]
    return moved
