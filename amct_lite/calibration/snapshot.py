"""What a calibration histogram has seen, frozen: the input of every range algorithm."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

__all__ = ["HistogramSnapshot"]


@dataclass(frozen=True)
class HistogramSnapshot:
    """Counts of values in bins of equal width, exact zeros apart.

    Attributes:
        width: The bins' width, a power of two.
        first_bin: Number of the first bin; bin i covers [i * width, (i + 1) * width).
        counts: int64 array, shape (n,), read-only: how many values, other than exact zeros, lie in each bin
            from first_bin on. The first and the last count are positive; empty where all values were zero.
        zeros: How many values were exactly zero.
        minimum: The lowest value, exact; 0.0 where none was seen.
        maximum: The highest value, exact; 0.0 where none was seen.
        batch_ranges: float64 array, shape (batches, 2): the lowest and the highest value of each batch, in order;
            empty where they were not kept.
    """

    width: float
    first_bin: int
    counts: npt.NDArray[np.int64]
    zeros: int
    minimum: float
    maximum: float
    batch_ranges: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), compare=False)

    @property
    def total(self) -> int:
        """How many values were seen, zeros included."""
        return int(self.counts.sum()) + self.zeros

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Bounds of the bins, float64, shape (n + 1,)."""
        return np.arange(self.counts.size + 1, dtype=np.float64) * self.width + self.first_bin * self.width

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Middles of the bins, float64, shape (n,); none lies beyond minimum or maximum."""
        return np.clip(self.edges[:-1] + 0.5 * self.width, self.minimum, self.maximum)

    def coarsened(self, num_bins: int) -> "HistogramSnapshot":
        """The same values in bins merged in pairs, until at most `num_bins` lie between the extremes, 0 included.

        Bins never merge across 0, so two remain where values lie on both sides of it.
        """
        first, width, counts = self.first_bin, self.width, self.counts
        num_bins = max(num_bins, 2)
        while max(first + counts.size, 1) - min(first, 0) > num_bins:
            counts = np.pad(counts, (first % 2, (first + counts.size) % 2)).reshape(-1, 2).sum(axis=1)
            first, width = first // 2, 2.0 * width
        return replace(self, width=width, first_bin=first, counts=counts)
