"""Sums per channel: what the inputs of a layer look like, channel by channel."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.scratch import CHUNK_SIZE
from amct_lite.errors import ParameterError

__all__ = ["ChannelMoments"]

# From so many values in a row on, float32 sums of a row are exact to about 1e-6 and take a quarter of the time.
LONG_ROW = 16


class ChannelMoments:
    """Count, sum and sum of squares of each channel, over all other axes, in float64.

    Attributes:
        channel_axis: Axis of the channels in the values.
        count: How many values each channel has had.
        sums: float64 array, shape (C,); empty before the first batch.
        square_sums: float64 array, shape (C,); empty before the first batch.

    Example:
        >>> moments = ChannelMoments(channel_axis=1)
        >>> moments.update(np.array([[1.0, 2.0], [3.0, 2.0]]))
        >>> moments.mean, moments.mean_square
        (array([2., 2.]), array([5., 4.]))
    """

    def __init__(self, channel_axis: int) -> None:
        self.channel_axis = channel_axis
        self.count = 0
        self.sums = np.zeros(0)
        self.square_sums = np.zeros(0)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of each channel, float64, shape (C,); zeros where no value was seen."""
        return self.sums / max(self.count, 1)

    @property
    def mean_square(self) -> npt.NDArray[np.float64]:
        """Mean square of each channel, float64, shape (C,); zeros where no value was seen."""
        return self.square_sums / max(self.count, 1)

    def update(self, values: npt.ArrayLike) -> None:
        """Adds a batch.

        Args:
            values: Real numbers; any shape that has the channel axis. NaN and infinity pass into the sums.

        Raises:
            ParameterError: There is no such axis, or the number of channels changed.
        """
        for _ in self.adding(values):
            pass

    def adding(self, values: npt.ArrayLike) -> Iterator[npt.NDArray[Any]]:
        """Adds a batch piece by piece, and yields each piece while it is in the cache, for other observers of it.

        Args:
            values: As for `update`.

        Yields:
            Arrays of shape (rows, channels, after); together they hold every value once.

        Raises:
            ParameterError: There is no such axis, or the number of channels changed.
        """
        array = np.asarray(values)
        if not -array.ndim <= self.channel_axis < array.ndim:
            raise ParameterError(f"Values of shape {array.shape} have no axis {self.channel_axis}.")
        axis = self.channel_axis % array.ndim
        num_channels = array.shape[axis]
        self._fit(num_channels)
        if array.size == 0:
            return
        # (before, channels, after): a view of any contiguous batch.
        blocks = array.reshape(int(np.prod(array.shape[:axis])), num_channels, -1)
        for channels, chunk in _chunks(blocks):
            # float16 is slow in every numpy operation but this one.
            chunk = chunk.astype(np.float32) if chunk.dtype == np.float16 else chunk
            self._add(chunk, channels)
            yield chunk
        self.count += array.size // num_channels

    def _add(self, chunk: npt.NDArray[Any], channels: slice) -> None:
        """Adds values of shape (rows, channels, after) to the sums of some channels."""
        with np.errstate(over="ignore", invalid="ignore"):
            if chunk.dtype == np.float32 and chunk.shape[2] >= LONG_ROW:
                square_sums = np.einsum("rca,rca->rc", chunk, chunk)
                if square_sums.max() < np.inf:
                    self.sums[channels] += _column_sums(np.einsum("rca->rc", chunk))
                    self.square_sums[channels] += _column_sums(square_sums)
                    return
            exact = chunk.astype(np.float64)
            self.sums[channels] += exact.sum(axis=(0, 2))
            self.square_sums[channels] += np.einsum("rca,rca->c", exact, exact)

    def merge(self, other: "ChannelMoments") -> None:
        """Adds what another observer has seen.

        Raises:
            ParameterError: The numbers of channels differ.
        """
        if other.sums.size == 0:
            return
        self._fit(other.sums.size)
        self.count += other.count
        self.sums += other.sums
        self.square_sums += other.square_sums

    def divided(self, factors: npt.NDArray[np.floating]) -> "ChannelMoments":
        """The moments of the same values with each channel divided by its factor, shape (channels,)."""
        found = ChannelMoments(self.channel_axis)
        found.count = self.count
        if self.sums.size:
            found.sums, found.square_sums = self.sums / factors, self.square_sums / np.square(factors, dtype=np.float64)
        return found

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Returns the whole state as arrays, for np.savez; from_arrays takes it back."""
        return {
            "integers": np.array([self.channel_axis, self.count], dtype=np.int64),
            "sums": self.sums.copy(),
            "square_sums": self.square_sums.copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "ChannelMoments":
        """Restores the moments from to_arrays.

        Raises:
            ParameterError: The arrays are not those of channel moments.
        """
        try:
            channel_axis, count = (int(value) for value in np.asarray(arrays["integers"], dtype=np.int64))
            sums = np.array(arrays["sums"], dtype=np.float64)
            square_sums = np.array(arrays["square_sums"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(f"These are not the arrays of channel moments: {error}.") from error
        if sums.ndim != 1 or sums.shape != square_sums.shape:
            raise ParameterError("These are not the arrays of channel moments: the sums do not match.")
        moments = cls(channel_axis)
        moments.count, moments.sums, moments.square_sums = count, sums, square_sums
        return moments

    def _fit(self, num_channels: int) -> None:
        """Learns the number of channels from the first batch, and holds every later one to it."""
        if self.sums.size == 0:
            self.sums, self.square_sums = np.zeros(num_channels), np.zeros(num_channels)
        elif self.sums.size != num_channels:
            raise ParameterError(f"The number of channels must not change. Got {num_channels} after {self.sums.size}.")


def _column_sums(rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Sums over axis 0 in float64; a single row is its own sum."""
    sums: npt.NDArray[Any] = rows[0] if rows.shape[0] == 1 else rows.sum(axis=0, dtype=np.float64)
    return sums


def _chunks(blocks: npt.NDArray[Any]) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Pieces of at most CHUNK_SIZE values that lie together, each with the channels that it holds."""
    before, num_channels, after = blocks.shape
    columns = min(after, CHUNK_SIZE)
    channels = min(num_channels, CHUNK_SIZE // columns)
    rows = CHUNK_SIZE // (columns * channels)
    for row in range(0, before, rows):
        for channel in range(0, num_channels, channels):
            for column in range(0, after, columns):
                found = slice(channel, channel + channels)
                yield found, blocks[row : row + rows, found, column : column + columns]
