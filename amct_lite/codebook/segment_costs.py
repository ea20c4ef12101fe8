"""The squared error of any run of weighted points about its mean, in constant time and to full precision."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Points", "SegmentCosts", "merge_runs"]

Float64Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]


class Points(NamedTuple):
    """Weighted points, each standing for one value or for all values of an interval.

    Attributes:
        mass: float64 array, shape (n,), positive: sum of the weights.
        mean: float64 array, shape (n,), ascending: weighted mean of the values.
    """

    mass: Float64Array
    mean: Float64Array

    def between(self, first: int, last: int) -> "Points":
        """The points first, ..., last - 1."""
        return Points(self.mass[first:last], self.mean[first:last])

    def mirrored(self) -> "Points":
        """The points with the sign of their means turned, ascending again."""
        return Points(self.mass[::-1], -self.mean[::-1])


def merge_runs(points: Points, bounds: IndexArray) -> Points:
    """Makes one point of each run of neighbouring points.

    Args:
        points: n points.
        bounds: Shape (m + 1,), strictly ascending from 0 to n: run r is bounds[r], ..., bounds[r + 1] - 1.

    Returns:
        m points.

    Example:
        >>> merge_runs(Points(np.ones(3), np.array([1.0, 2.0, 9.0])), np.array([0, 2, 3])).mean
        array([1.5, 9. ])
    """
    starts = bounds[:-1]
    mass = np.add.reduceat(points.mass, starts)
    # Differences to a value of the run itself keep the digits that sums of the values would lose.
    anchor = points.mean[starts]
    offset = points.mean - np.repeat(anchor, np.diff(bounds))
    return Points(mass, anchor + np.add.reduceat(points.mass * offset, starts) / mass)


class _Runs(NamedTuple):
    """Mass, mean and sum of squares about the mean of many runs."""

    mass: Float64Array
    mean: Float64Array
    square: Float64Array


class SegmentCosts:
    """Answers what the segment of points first, ..., last - 1 costs: sum of mass * (mean - segment's mean)**2.

    Differences of cumulative sums, the usual way, lose all digits beside an outlier, a heavy weight or far from
    zero. Here every segment is merged from just two runs that end and start at a multiple of a power of two (a
    "disjoint sparse table"), and merging adds positive terms only (T. F. Chan, G. H. Golub and R. J. LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", COMPSTAT 1982, eq. 2.1).

    Example:
        >>> costs = SegmentCosts(Points(np.ones(3), np.array([1e15, 1e15 + 2.0, 2e15])))
        >>> costs.about_mean(np.array([0, 1]), np.array([2, 1]))
        array([2., 0.])
    """

    def __init__(self, points: Points) -> None:
        num_points = points.mass.size
        num_levels = num_points.bit_length()
        self._stride = stride = 1 << num_levels
        self._level = np.frexp(np.arange(stride))[1] - 1  # the highest bit that is set
        self._level[0] = 0
        self._level *= stride
        # At level l: what lies from a bound up to the next multiple of 2**l, and from the last multiple to it.
        self._before, self._after = (_Runs(*np.zeros((3, num_levels, stride))) for _ in range(2))
        before, after = (_Runs(*np.zeros((3, stride))) for _ in range(2))
        before.mass[:num_points], before.mean[:num_points] = points.mass, points.mean
        before.mean[num_points:] = points.mean[-1]
        for level in range(num_levels):
            for table, column in zip((*self._before, *self._after), (*before, *after), strict=True):
                table[level] = column
            pairs = [_Runs(*(column.reshape(-1, 2, 1 << level) for column in runs)) for runs in (before, after)]
            blocks = _Runs(*(column[:, :, :1] for column in pairs[0]))
            before = _with_half(pairs[0], 0, _merge(_half(pairs[0], 0), _half(blocks, 1)))
            after = _with_half(pairs[1], 1, _merge(_half(blocks, 0), _half(pairs[1], 1)))
        self._before = _Runs(*(table.reshape(-1) for table in self._before))
        self._after = _Runs(*(table.reshape(-1) for table in self._after))

    def about_mean(self, first: IndexArray, last: IndexArray) -> Float64Array:
        """Costs of segments with their best level, float64, of the shape of first; 0 where first == last."""
        left, right = self._halves(first, last)
        cost = right.mean - left.mean
        np.square(cost, out=cost)
        cost *= left.mass
        total = left.mass + right.mass
        # An empty segment has no mass at all; there anything but nought will do as divisor.
        np.maximum(total, np.finfo(np.float64).tiny, out=total)
        cost *= right.mass / total
        cost += left.square
        cost += right.square
        cost[first == last] = 0.0
        return cost

    def _halves(self, first: IndexArray, last: IndexArray) -> tuple[_Runs, _Runs]:
        offset = self._level.take(first ^ last)
        before, after = offset + first, offset + last
        left = _Runs(*(column.take(before) for column in self._before))
        return left, _Runs(*(column.take(after) for column in self._after))


def _merge(left: _Runs, right: _Runs) -> _Runs:
    mass = left.mass + right.mass
    share = right.mass / np.maximum(mass, np.finfo(np.float64).tiny)
    step = right.mean - left.mean
    square = left.square + right.square + np.square(step) * left.mass * share
    return _Runs(mass, left.mean + step * share, square)


def _half(pairs: _Runs, side: int) -> _Runs:
    return _Runs(*(column[:, side] for column in pairs))


def _with_half(pairs: _Runs, side: int, merged: _Runs) -> _Runs:
    columns = []
    for column, new in zip(pairs, merged, strict=True):
        changed = column.copy()
        changed[:, side] = new
        columns.append(changed.reshape(-1))
    return _Runs(*columns)
