"""A small histogram for each channel: what the values look like once every channel is divided by a factor of its own.

The factors of balancing depend on the data, so the histogram of the balanced values cannot be filled in the same sweep.
This one can, and is exact in the extremes; only where a value lies within a bin is not known. As in `histogram`, the
bins' widths are powers of two, so that the state does not depend on how the data came.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.histogram import MIN_EXPONENT, NUM_BINS, Histogram, coarsened
from amct_lite.errors import ParameterError

__all__ = ["BINS_PER_SIDE", "ChannelHistograms"]

# On either side of 0: at least four bins to a level of an int8 grid that takes in the channel, for 32 KiB a channel.
BINS_PER_SIDE = 2048

Float64Array = npt.NDArray[np.float64]


class ChannelHistograms:
    """Counts values batch by batch, each channel in bins that suit its own range.

    Attributes:
        channel_axis: Axis of the channels in the values.
        batch_ranges: The extremes of each batch, float64 arrays, shape (channels, 2).

    Example:
        >>> channels = ChannelHistograms(channel_axis=1)
        >>> channels.update(np.array([[1.0, -8.0], [0.5, 2.0]], np.float32))
        >>> channels.maxima
        array([1., 8.])
        >>> balanced = channels.divided(np.array([1.0, 4.0]))
        >>> balanced.minimum, balanced.maximum
        (-2.0, 1.0)
    """

    def __init__(self, channel_axis: int) -> None:
        self.channel_axis = channel_axis
        self.batch_ranges: list[Float64Array] = []
        self._exponents = np.zeros(0, np.int64)
        self._zeros = np.zeros(0, np.int64)
        # Bin i of a channel, from -BINS_PER_SIDE to BINS_PER_SIDE - 1, is entry i + BINS_PER_SIDE.
        self._counts = np.zeros((0, 2 * BINS_PER_SIDE), np.int64)

    @property
    def extremes(self) -> Float64Array:
        """The lowest and the highest value of each channel, shape (channels, 2)."""
        if not self.batch_ranges:
            return np.zeros((0, 2))
        ranges = np.stack(self.batch_ranges)
        return np.stack([ranges[:, :, 0].min(axis=0), ranges[:, :, 1].max(axis=0)], axis=1)

    @property
    def maxima(self) -> Float64Array:
        """The largest magnitude of each channel, shape (channels,); empty before the first value."""
        found: Float64Array = np.abs(self.extremes).max(axis=1)
        return found

    def update(self, values: npt.NDArray[Any]) -> None:
        """Counts a batch.

        Args:
            values: Finite real numbers; any shape that has the channel axis.

        Raises:
            ParameterError: The number of channels changed.
        """
        if values.size == 0:
            return
        rows = np.moveaxis(values, self.channel_axis, 0).reshape(values.shape[self.channel_axis], -1)
        extremes = np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1).astype(np.float64)
        self._widen(_exponents(np.abs(extremes).max(axis=1)))
        self.batch_ranges.append(extremes)
        for channel, row in enumerate(rows):
            row = row.astype(np.float64)
            bins = np.floor(row * math.ldexp(1.0, -int(self._exponents[channel]))).astype(np.intp) + BINS_PER_SIDE
            zeros = row.size - np.count_nonzero(row)
            self._counts[channel] += np.bincount(bins, minlength=2 * BINS_PER_SIDE)
            self._counts[channel, BINS_PER_SIDE] -= zeros
            self._zeros[channel] += zeros

    def merge(self, other: "ChannelHistograms") -> None:
        """Adds what another observer has seen in later batches, as if this one had seen it."""
        if not other.batch_ranges:
            return
        self._widen(other._exponents)
        self.batch_ranges += other.batch_ranges
        self._zeros += other._zeros
        for channel, counts in enumerate(other._counts):
            self._counts[channel] += coarsened(counts, int(self._exponents[channel] - other._exponents[channel]))

    def divided(self, factors: npt.NDArray[np.floating]) -> Histogram:
        """A histogram of all channels together, each divided by its factor.

        Args:
            factors: Positive numbers, shape (channels,).
        """
        if not self.batch_ranges:
            return Histogram()
        extremes = self.extremes / factors[:, None]
        low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
        # No finer than the coarsest channel's bins, which would lie in it like the teeth of a comb.
        widths = np.ldexp(1.0, self._exponents) / factors
        one_sided = low >= 0.0
        least = int(_exponents(np.array([max(-low, high)]), NUM_BINS if one_sided else NUM_BINS // 2)[0])
        exponent = max(least, math.ceil(math.log2(widths.max())))
        middles = np.arange(-BINS_PER_SIDE, BINS_PER_SIDE) + 0.5
        total = np.zeros(2 * NUM_BINS, np.int64)
        for counts, width, (lowest, highest) in zip(self._counts, widths, extremes, strict=True):
            seen = np.flatnonzero(counts)
            values = np.clip(middles[seen] * width, lowest, highest)
            bins = np.floor(values * math.ldexp(1.0, -exponent)).astype(np.intp) + NUM_BINS
            np.add.at(total, bins, counts[seen])
        seen = np.flatnonzero(total)
        first = int(seen[0]) if seen.size else NUM_BINS
        return Histogram.from_arrays(
            {
                "counts": total[first : seen[-1] + 1] if seen.size else total[:0],
                "integers": np.array([exponent, first - NUM_BINS, self._zeros.sum()], np.int64),
                "range": np.array([low, high]),
            }
        )

    def divided_batch_ranges(self, factors: npt.NDArray[np.floating]) -> list[tuple[float, float]]:
        """The extremes of each batch, all channels together, each divided by its factor."""
        divided = [ranges / factors[:, None] for ranges in self.batch_ranges]
        return [(float(ranges[:, 0].min()), float(ranges[:, 1].max())) for ranges in divided]

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Returns the whole state as arrays, for np.savez; from_arrays takes it back."""
        return {
            "axis": np.array(self.channel_axis),
            "exponents": self._exponents.copy(),
            "zeros": self._zeros.copy(),
            "counts": self._counts.copy(),
            "batch_ranges": np.array(self.batch_ranges, np.float64).reshape(-1, self._zeros.size, 2),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "ChannelHistograms":
        """Restores the histograms from to_arrays.

        Raises:
            ParameterError: The arrays are not those of channel histograms.
        """
        try:
            found = cls(int(arrays["axis"]))
            found._exponents = np.array(arrays["exponents"], np.int64)
            found._zeros = np.array(arrays["zeros"], np.int64)
            found._counts = np.array(arrays["counts"], np.int64)
            found.batch_ranges = list(np.array(arrays["batch_ranges"], np.float64))
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(f"These are not the arrays of channel histograms: {error}.") from error
        if found._counts.shape != (found._zeros.size, 2 * BINS_PER_SIDE):
            raise ParameterError("These are not the arrays of channel histograms: the counts do not match.")
        return found

    def _widen(self, exponents: npt.NDArray[np.int64]) -> None:
        """Learns the number of channels from the first batch, and widens the bins of channels that need it."""
        if not self.batch_ranges:
            self._exponents, self._zeros = exponents.copy(), np.zeros(exponents.size, np.int64)
            self._counts = np.zeros((exponents.size, 2 * BINS_PER_SIDE), np.int64)
            return
        if exponents.size != self._exponents.size:
            raise ParameterError(
                f"The number of channels must not change. Got {exponents.size} after {self._exponents.size}."
            )
        for channel in np.flatnonzero(exponents > self._exponents):
            doublings = int(exponents[channel] - self._exponents[channel])
            self._counts[channel] = coarsened(self._counts[channel], doublings)
        self._exponents = np.maximum(self._exponents, exponents)


def _exponents(maxima: Float64Array, num_bins: int = BINS_PER_SIDE) -> npt.NDArray[np.int64]:
    """For each magnitude the least exponent of a width with which it lies below num_bins, a power of two."""
    found = np.frexp(maxima)[1] - (num_bins.bit_length() - 1)
    return np.where(maxima > 0.0, np.maximum(found, MIN_EXPONENT), MIN_EXPONENT).astype(np.int64)
