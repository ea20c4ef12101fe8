"""The exact best partition of ascending points into contiguous segments, by dynamic programming.

best_k(j) = min over i of best_{k-1}(i) + cost(i, j), where best_k(j) is the least error of the first j points
with k levels (W. D. Fisher, "On grouping for maximum homogeneity", JASA 53, 1958). The cost satisfies the
quadrangle inequality for any non-negative weights, so the best i rises with j and with k (X. Wu, "Optimal
quantization by matrix searching", J. Algorithms 12, 1991; A. Grønlund et al., "Fast exact k-means, k-medians
and Bregman divergence clustering in 1D", arXiv:1701.07204), and few candidates are left to look at.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.segment_costs import Points, SegmentCosts

__all__ = ["Segmentation", "best_segments", "best_segments_beside_zero"]

Float64Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

# How finely the bounds between two known ones are filled in at a time. Two needs the fewest candidates, more
# need fewer calls of numpy, which are what a row of a few hundred points costs.
BRANCHES = 4


@dataclass(frozen=True)
class Segmentation:
    """A partition of points into contiguous segments.

    Attributes:
        bounds: Shape (k + 1,), ascending from 0 to the number of points: segment s is the points bounds[s], ...,
            bounds[s + 1] - 1. A segment can be empty.
        zero_segment: Which segment has its level at 0; None where all levels are free.
    """

    bounds: IndexArray
    zero_segment: int | None = None


def best_segments(points: Points, num_segments: int) -> Segmentation:
    """Partitions points so that the sum of mass * (mean - segment's mean)**2 is least.

    Args:
        points: n points.
        num_segments: How many segments, at least 1.

    Returns:
        The partition, of min(num_segments, n) segments.

    Example:
        >>> best_segments(Points(np.ones(4), np.array([0.0, 1.0, 10.0, 12.0])), 2).bounds
        array([0, 2, 4])
    """
    prefixes = _BestPrefixes(points, num_segments)
    return Segmentation(np.append(prefixes.starts(prefixes.num_rows, points.mass.size), points.mass.size))


def best_segments_beside_zero(points: Points, num_segments: int) -> Segmentation:
    """Partitions points as best_segments does, with the level of one segment fixed at 0.

    Whoever has a negative level is negative, and positive likewise, so the two sides only share the number of
    segments: each side is solved for all numbers at once, with what is left next to 0 as its last segment.

    Args:
        points: n points.
        num_segments: How many segments, at least 1, that of 0 included.

    Returns:
        The partition; the segment of 0 may be empty.

    Example:
        >>> best_segments_beside_zero(Points(np.ones(4), np.array([-0.25, 1.0, 10.0, 12.0])), 2)
        Segmentation(bounds=array([0, 2, 4]), zero_segment=0)
    """
    size = points.mass.size
    negative, positive = np.searchsorted(points.mean, 0.0), np.searchsorted(points.mean, 0.0, side="right")
    below = _Side(points.between(0, int(negative)), num_segments - 1)
    above = _Side(points.between(int(positive), size).mirrored(), num_segments - 1)
    num_below = np.arange(below.errors.size)
    num_above = np.minimum(num_segments - 1 - num_below, above.errors.size - 1)
    best = int(np.argmin(below.errors + above.errors[num_above]))
    left = below.bounds(best)
    right = size - above.bounds(int(num_above[best]))[::-1]
    return Segmentation(np.concatenate([left, right]), zero_segment=best)


class _Side:
    """The points on one side of 0, best partitioned into 0, 1, 2, ... segments and a rest that goes to 0."""

    def __init__(self, points: Points, num_segments: int) -> None:
        self._prefixes = _BestPrefixes(points, num_segments)
        to_zero = np.append(np.cumsum((points.mass * np.square(points.mean))[::-1])[::-1], 0.0)
        errors = self._prefixes.errors + to_zero
        self._ends = np.append(0, np.argmin(errors, axis=1))
        self.errors = np.append(to_zero[0], errors.min(axis=1))

    def bounds(self, num_segments: int) -> IndexArray:
        """The bounds of the segments from 0 up to the rest, shape (num_segments + 1,)."""
        end = int(self._ends[num_segments])
        return np.append(self._prefixes.starts(num_segments, end), end)


class _BestPrefixes:
    """The best partitions of all prefixes.

    Attributes:
        num_rows: Up to how many segments, K = min(num_segments, n).
        errors: Shape (K, n + 1): entry [k - 1, j] is the error of the first j points in at most k segments.
    """

    def __init__(self, points: Points, num_segments: int) -> None:
        size = points.mass.size
        self.num_rows = min(num_segments, size)
        self.errors = np.zeros((self.num_rows, size + 1))
        self._last_starts = np.zeros((self.num_rows, size + 1), dtype=np.intp)
        if self.num_rows == 0:
            return
        costs = SegmentCosts(points)
        self.errors[0] = costs.about_mean(np.zeros(size + 1, dtype=np.intp), np.arange(size + 1))
        schedule = _schedule(size)
        for k in range(1, self.num_rows):
            _fill_row(costs, schedule, self.errors[k - 1 : k + 1], self._last_starts[k - 1 : k + 1])

    def starts(self, num_segments: int, end: int) -> IndexArray:
        """The first points of the segments of the first `end` points, shape (num_segments,)."""
        found = np.empty(num_segments, dtype=np.intp)
        for k in range(num_segments - 1, -1, -1):
            found[k] = end = int(self._last_starts[k, end])
        return found


def _schedule(size: int) -> list[tuple[IndexArray, IndexArray, IndexArray]]:
    """In which order a row is filled: bounds, between those known already below and above; above may be beyond."""
    stride = 1
    while stride <= size:
        stride *= BRANCHES
    order = []
    while stride > 1:
        coarse, stride = stride, stride // BRANCHES
        bounds = np.arange(stride, size + 1, stride)
        bounds = bounds[bounds % coarse != 0]
        below = bounds - bounds % coarse
        order.append((below, bounds, below + coarse))
    return order


def _fill_row(
    costs: SegmentCosts,
    schedule: list[tuple[IndexArray, IndexArray, IndexArray]],
    errors: Float64Array,
    starts: IndexArray,
) -> None:
    """Fills row 1 of errors and starts, both of shape (2, n + 1), from row 0."""
    size = errors.shape[1] - 1
    for below, bounds, above in schedule:
        lowest = np.maximum(starts[1].take(below), starts[0].take(bounds))
        # Beyond the last known bound nothing limits the start but the bound itself.
        highest = np.minimum(starts[1].take(above, mode="clip"), bounds)
        highest[above > size] = bounds[above > size]
        highest = np.maximum(highest, lowest)
        starts[1, bounds], errors[1, bounds] = _best_of_ranges(costs, errors[0], bounds, lowest, highest)


def _best_of_ranges(
    costs: SegmentCosts, previous: Float64Array, bounds: IndexArray, lowest: IndexArray, highest: IndexArray
) -> tuple[IndexArray, Float64Array]:
    """The best start, the first of equal ones, for segments that end at bounds, and the error with it."""
    lengths = highest - lowest + 1
    offsets = lengths.cumsum() - lengths
    # `take` costs half of what indexing does, and this is where clustering spends its time.
    numbers = np.arange(bounds.size)
    row = numbers.repeat(lengths)
    candidates = np.arange(row.size)
    candidates += (lowest - offsets).take(row)
    errors = costs.about_mean(candidates, bounds.take(row))
    errors += previous.take(candidates)
    best = np.minimum.reduceat(errors, offsets)
    hits = (errors == best.take(row)).nonzero()[0]
    first = hits.take(row.take(hits).searchsorted(numbers))
    return candidates.take(first), best
