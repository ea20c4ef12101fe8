"""NUQ of activations: the levels of a calibrated tensor, clustered by how often each occurs."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.exact_grid import best_levels
from amct_lite.errors import ParameterError
from amct_lite.types import Grid

__all__ = ["ValueHistogram", "cluster_activation", "ends_at_zero", "level_histogram"]


class ValueHistogram(Protocol):
    """What is needed of a calibration histogram; calibration's HistogramSnapshot is one.

    A Protocol, so that this room knows nothing of how histograms are made.
    """

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Bounds of the bins, shape (n + 1,), ascending."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many values lie in each bin, without exact zeros, shape (n,)."""

    @property
    def zeros(self) -> int:
        """How many values are exactly zero."""

    @property
    def minimum(self) -> float:
        """The lowest value."""

    @property
    def maximum(self) -> float:
        """The highest value."""


def level_histogram(snapshot: ValueHistogram, grid: Grid) -> npt.NDArray[np.float64]:
    """Converts a histogram of values to counts per level of a grid.

    A bin that several levels share is split in proportion to its overlap with what rounds to each of them.
    What lies beyond the grid counts at its ends, exact zeros at the level of zero.

    Args:
        snapshot: The histogram.
        grid: The grid.

    Returns:
        float64 array, shape (2**num_bits,): entry q - q_min is the count of level q. The sum is that of the
        histogram.
    """
    edges, counts = snapshot.edges, snapshot.counts
    levels = np.zeros(2**grid.num_bits)
    if counts.size:
        bounds = (np.arange(grid.q_min, grid.q_max) + 0.5 - grid.offset) * grid.scale
        below = np.interp(bounds, edges, np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)]))
        levels += np.diff(below, prepend=0.0, append=float(counts.sum()))
    levels[grid.offset - grid.q_min] += snapshot.zeros
    return levels


def ends_at_zero(snapshot: ValueHistogram) -> bool:
    """Whether the values reach zero exactly and never pass it, as behind a Relu or a Clip.

    Such zeros mean "off": a tensor that stands for them by a small number adds it, times all its weights, to every
    output behind it.

    Args:
        snapshot: The histogram.
    """
    return snapshot.zeros > 0 and 0.0 in (snapshot.minimum, snapshot.maximum)


def cluster_activation(
    level_counts: npt.ArrayLike, num_levels: int, *, zero_level: int | None = None
) -> npt.NDArray[np.int64]:
    """Chooses the levels to keep, with the least squared error over the calibration data.

    Args:
        level_counts: Shape (2**num_bits,): how often each level occurs, from the lowest level upwards.
        num_levels: How many levels to keep.
        zero_level: The level that stands for 0, to be kept whatever the counts; None where it need not be.

    Returns:
        Levels, int64, ascending, at most num_levels.

    Raises:
        ParameterError: The number of counts is no power of two, no count is positive, or there is no such level.

    Example:
        >>> cluster_activation([0, 0, 9, 1], num_levels=1)
        array([0])
        >>> cluster_activation([0, 0, 9, 1], num_levels=1, zero_level=-1)
        array([-1])
    """
    counts = np.asarray(level_counts, dtype=np.float64)
    if counts.ndim != 1 or counts.size < 2 or counts.size & (counts.size - 1):
        raise ParameterError(f"Level counts must be a vector of 2**num_bits. Got shape {counts.shape} instead.")
    half = counts.size // 2
    return best_levels(np.arange(-half, half), counts, num_levels, reserved=zero_level).levels
