"""The expected squared error of quantizing what a histogram counted, in closed form.

The values of a bin are taken to be spread evenly over it, so the density is constant there and the error an integral
with an antiderivative; exact zeros lie on a level and cost nothing. Nothing is sampled, and grids finer than the bins
are measured as well as coarse ones.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange, Grid
from amct_lite.uniform.grid import grid_from_range

__all__ = ["SquaredError"]

Float64Array = npt.NDArray[np.float64]

# With more levels than this, going through the bins is faster than going through the bounds between levels.
MAX_TABLE_BITS = 10


class SquaredError:
    """Measures grids of one kind on one histogram.

    Attributes:
        power: Sum of the squared values.
    """

    def __init__(self, snapshot: HistogramSnapshot, *, num_bits: int, with_offset: bool) -> None:
        """Prepare the tables.

        Args:
            snapshot: What calibration saw.
            num_bits: Width of a level.
            with_offset: Whether grids may have an offset.
        """
        self._snapshot, self._num_bits, self._with_offset = snapshot, num_bits, with_offset
        counts, edges = snapshot.counts.astype(np.float64), snapshot.edges
        centres = edges[:-1] + 0.5 * snapshot.width
        # One entry before the first bin and one behind the last, both without values.
        self._density = np.concatenate([[0.0], counts / snapshot.width, [0.0]])
        self._edges = np.concatenate([edges[:1], edges]) if counts.size else np.zeros(2)
        self._mass = np.concatenate([[0.0, 0.0], np.cumsum(counts)])
        self._moment = np.concatenate([[0.0, 0.0], np.cumsum(counts * centres)])
        self.power = float(np.sum(counts * (centres * centres + snapshot.width**2 / 12.0)))

    def of_ranges(self, ranges: Sequence[ClipRange]) -> Float64Array:
        """Sum of the squared errors for each of some clip ranges, shape (ranges,)."""
        grids = [grid_from_range(clip, num_bits=self._num_bits, with_offset=self._with_offset) for clip in ranges]
        if self._num_bits > MAX_TABLE_BITS:
            return np.array([self._through_bins(grid) for grid in grids])
        return self._through_levels(grids)

    def clipped_above(self, points: Float64Array) -> Float64Array:
        """Sum of (x - point)**2 over all x beyond each point."""
        total, moment = self._mass[-1], self._moment[-1]
        rest = self.power - 2.0 * points * moment + points * points * total
        return np.asarray(np.maximum(rest - self.clipped_below(points), 0.0))

    def clipped_below(self, points: Float64Array) -> Float64Array:
        """Sum of (x - point)**2 over all x below each point."""
        edges, density = self._edges[1:], self._density[1:-1]
        if not density.size:
            return np.zeros(points.shape)
        # The second antiderivative of the density, doubled and integrated once more, at the bins' edges.
        at_edges = np.concatenate([[0.0], np.cumsum(self._bin_increments())])
        index = np.clip(np.searchsorted(edges, points, side="right") - 1, 0, density.size)
        t = np.maximum(points - edges[index], 0.0)
        below = self._mass[1:][index] * edges[index] - self._moment[1:][index]
        inside = np.append(density, 0.0)[index]
        return np.asarray(at_edges[index] + 2.0 * below * t + self._mass[1:][index] * t * t + inside * t**3 / 3.0)

    def _bin_increments(self) -> Float64Array:
        width, edges = self._snapshot.width, self._edges[1:-1]
        mass, moment = self._mass[1:-1], self._moment[1:-1]
        return np.asarray(
            2.0 * (mass * edges - moment) * width + mass * width**2 + self._density[1:-1] * width**3 / 3.0
        )

    def _through_levels(self, grids: Sequence[Grid]) -> Float64Array:
        """By the bounds between levels.

        With F0 and F1 the antiderivatives of the density and of x times it, summation by parts over the cells of the
        levels l leaves, of all that depends on a bound b, 2 * scale * (F1(b) - b * F0(b)).
        """
        scales = np.array([grid.scale for grid in grids])
        last = np.array([grid.q_max - grid.offset for grid in grids])
        bounds = (last[:, None] - 0.5 - np.arange(2**self._num_bits - 1)) * scales[:, None]
        index = np.floor(bounds * (1.0 / self._snapshot.width)) - (self._snapshot.first_bin - 1)
        index = np.clip(index, 0.0, self._density.size - 1.0).astype(np.intp)
        into = bounds - self._edges[index]
        at_bounds = self._moment[index] - bounds * self._mass[index] - 0.5 * self._density[index] * into * into
        top = last * scales
        ends = self.power - 2.0 * top * self._moment[-1] + top * top * self._mass[-1]
        return np.asarray(np.maximum(ends + 2.0 * scales * at_bounds.sum(axis=1), 0.0))

    def _through_bins(self, grid: Grid) -> float:
        """By the bins: an antiderivative of the squared error at their edges.

        Within the grid each step adds scale**3 / 12, and the part of a step reached so far d**3 / 3, where d is the
        distance to the nearest level; beyond its ends the error is the distance to the end level.
        """
        position = self._snapshot.edges / grid.scale
        inside = np.clip(position, grid.q_min - grid.offset, grid.q_max - grid.offset)
        nearest = np.rint(inside)
        partly = inside - nearest
        beyond = position - inside
        # Products, because numpy's general power takes ten times as long.
        integral = nearest / 12.0 + (partly * partly * partly + beyond * beyond * beyond) / 3.0
        return float(np.sum(self._density[1:-1] * np.diff(integral))) * grid.scale**3
