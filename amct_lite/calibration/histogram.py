"""A histogram that finds its own range, merges exactly and takes constant memory.

Bins are anchored at 0 and their width is a power of two. When the range has to grow, the width doubles and
bins merge in pairs; floor(floor(x / w) / 2) = floor(x / 2w), so the outcome is the one of counting at the
final width from the start. It depends on the data only: not on batch sizes, order, or how shards were merged.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.scratch import CHUNK_SIZE, Scratch
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.errors import ParameterError

__all__ = ["MIN_EXPONENT", "NUM_BINS", "Histogram", "coarsened"]

NUM_BINS = 8192
"""At most this many bins between the lowest and the highest value, 0 included."""

# Below it 2**-exponent leaves the range of float32. Finer bins would tell apart values that no grid can.
MIN_EXPONENT = -126

# Types that float32 holds exactly, so that counting can run in float32.
FLOAT32_TYPES = frozenset(map(np.dtype, ("bool", "int8", "uint8", "int16", "uint16", "float32")))


class Histogram:
    """Counts values batch by batch.

    Args:
        scratch: Memory to work in, which histograms of one thread can share; None for memory of its own.

    Attributes:
        exponent: The bins' width is 2**exponent, the least for all values seen and 0 to fit NUM_BINS bins.
        zeros: How many values were exactly zero; they are in no bin.
        minimum: The lowest value seen, inf before any.
        maximum: The highest value seen, -inf before any.

    Example:
        >>> histogram = Histogram()
        >>> histogram.update(np.array([0.0, 0.5, 2.0], dtype=np.float32))
        >>> histogram.total, histogram.zeros, histogram.maximum
        (3, 1, 2.0)
    """

    def __init__(self, scratch: Scratch | None = None) -> None:
        self._scratch = Scratch() if scratch is None else scratch
        self.exponent = MIN_EXPONENT
        self.zeros = 0
        self.minimum = math.inf
        self.maximum = -math.inf
        # Bin i, from -NUM_BINS to NUM_BINS - 1, is entry i + NUM_BINS, so that halving i keeps pairs aligned.
        self._counts = np.zeros(2 * NUM_BINS, dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is pickled is what is saved, without the scratch and the empty bins.
        return Histogram.from_arrays, (self.to_arrays(),)

    @property
    def total(self) -> int:
        """How many values were seen, zeros included."""
        return int(self._counts.sum()) + self.zeros

    def update(self, values: npt.ArrayLike) -> None:
        """Counts a batch; arguments and errors as for `count`."""
        self.count(values)

    def count(self, values: npt.ArrayLike) -> tuple[float, float]:
        """Counts a batch and says what it ranges over.

        Args:
            values: Real numbers of any shape and numeric type; may be empty.

        Returns:
            The lowest and the highest of them; (inf, -inf) where there are none.

        Raises:
            ParameterError: A value is NaN or infinite, or the array does not hold real numbers. The histogram
                is then unchanged.
        """
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise ParameterError(f"A histogram counts real numbers. Got an array of {array.dtype} instead.")
        if array.size == 0:
            return math.inf, -math.inf
        # float16 is slow in every numpy operation but this one.
        flat = array.ravel(order="K").astype(np.float32 if array.dtype == np.float16 else array.dtype, copy=False)
        # Adding 0 turns -0 into 0, so that the state does not tell which of the two came first.
        low, high = float(np.minimum.reduce(flat)) + 0.0, float(np.maximum.reduce(flat)) + 0.0
        if not (math.isfinite(low) and math.isfinite(high)):
            num_nan = int(np.count_nonzero(np.isnan(flat)))
            num_infinite = int(np.count_nonzero(np.isinf(flat)))
            raise ParameterError(
                f"{num_nan} NaN and {num_infinite} infinite values among the {flat.size} to calibrate on."
            )
        self._widen(low, high)
        working_type = np.float32 if flat.dtype in FLOAT32_TYPES else np.float64
        for start in range(0, flat.size, CHUNK_SIZE):
            self._count(flat[start : start + CHUNK_SIZE].astype(working_type, copy=False), low, high)
        return low, high

    def merge(self, other: "Histogram") -> None:
        """Adds what another histogram has seen, as if this one had seen it."""
        self._widen(other.minimum, other.maximum)
        self._counts += coarsened(other._counts, self.exponent - other.exponent)
        self.zeros += other.zeros

    def snapshot(self) -> HistogramSnapshot:
        """Returns the counts so far, as range algorithms take them; total is 0 where no value was seen."""
        seen = self.minimum <= self.maximum
        first, counts = self._occupied()
        counts.flags.writeable = False
        return HistogramSnapshot(
            width=math.ldexp(1.0, self.exponent),
            first_bin=first,
            counts=counts,
            zeros=self.zeros,
            minimum=self.minimum if seen else 0.0,
            maximum=self.maximum if seen else 0.0,
        )

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Returns the whole state as arrays, for np.savez; from_arrays takes it back."""
        first, counts = self._occupied()
        return {
            "counts": counts,
            "integers": np.array([self.exponent, first, self.zeros], dtype=np.int64),
            "range": np.array([self.minimum, self.maximum], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "Histogram":
        """Restores a histogram from to_arrays.

        Raises:
            ParameterError: The arrays are not those of a histogram.
        """
        try:
            counts = np.asarray(arrays["counts"], dtype=np.int64)
            exponent, first, zeros = (int(value) for value in np.asarray(arrays["integers"], dtype=np.int64))
            minimum, maximum = (float(value) for value in np.asarray(arrays["range"], dtype=np.float64))
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(f"These are not the arrays of a histogram: {error}.") from error
        start = first + NUM_BINS
        if not (counts.ndim == 1 and 0 <= start <= start + counts.size <= 2 * NUM_BINS):
            raise ParameterError("These are not the arrays of a histogram: the counts do not fit the bins.")
        histogram = cls()
        histogram.exponent, histogram.zeros = exponent, zeros
        histogram.minimum, histogram.maximum = minimum, maximum
        histogram._counts[start : start + counts.size] = counts
        return histogram

    def _occupied(self) -> tuple[int, npt.NDArray[np.int64]]:
        """The first bin with a value, and a copy of the counts from there to the last; (0, empty) if none."""
        occupied = np.flatnonzero(self._counts)
        if occupied.size == 0:
            return 0, np.zeros(0, dtype=np.int64)
        return int(occupied[0]) - NUM_BINS, self._counts[occupied[0] : occupied[-1] + 1].copy()

    def _widen(self, low: float, high: float) -> None:
        """Takes a range in, and doubles the width as often as it needs."""
        if self.minimum <= low and high <= self.maximum:
            return
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        exponent = _least_exponent(min(self.minimum, 0.0), max(self.maximum, 0.0))
        if exponent > self.exponent:
            self._counts = coarsened(self._counts, exponent - self.exponent)
            self.exponent = exponent

    def _count(self, values: npt.NDArray[np.floating], low: float, high: float) -> None:
        """Counts a chunk that lies in [low, high], which the bins cover."""
        zeros = values.size - int(np.count_nonzero(values != 0.0)) if low <= 0.0 <= high else 0
        self.zeros += zeros
        if zeros == values.size:
            return
        # Multiplying by a power of two is exact, and so is every float32 integer up to NUM_BINS.
        scale = values.dtype.type(math.ldexp(1.0, -self.exponent))
        indices = self._scratch.indices[: values.size]
        if low < 0.0:
            space = self._scratch.floats[: values.size] if values.dtype == np.float32 else None
            scaled = np.multiply(values, scale, out=space)
            np.floor(scaled, out=scaled)
            if self.exponent > 0:
                # A tiny negative value can underflow to -0, which floor leaves; it belongs into bin -1.
                scaled[(scaled == 0.0) & (values < 0.0)] = -1.0
            np.add(scaled, scaled.dtype.type(NUM_BINS), out=indices, casting="unsafe")
            counts = self._counts
        else:
            # Without negative values, the conversion to integers, which numpy does piece by piece, is the floor.
            np.multiply(values, scale, out=indices, casting="unsafe")
            counts = self._counts[NUM_BINS:]
        # Unlike bincount, this takes no pass for the range and no fresh array of counts.
        np.add.at(counts, indices, 1)
        self._counts[NUM_BINS] -= zeros


def _least_exponent(low: float, high: float) -> int:
    """The least exponent with which [low, high], low <= 0 <= high, takes at most NUM_BINS bins."""
    if low == high:
        return MIN_EXPONENT
    # At this exponent or less, the longer side alone takes more than NUM_BINS: the search starts low enough.
    exponent = max(math.frexp(max(-low, high))[1] - NUM_BINS.bit_length(), MIN_EXPONENT)
    while True:
        bins_above = math.floor(math.ldexp(high, -exponent)) + 1
        bins_below = max(math.ceil(math.ldexp(-low, -exponent)), 1 if low < 0.0 else 0)
        if bins_above + bins_below <= NUM_BINS:
            return exponent
        exponent += 1


def coarsened(counts: npt.NDArray[np.int64], doublings: int) -> npt.NDArray[np.int64]:
    """Merges bins in pairs, as often as asked.

    Args:
        counts: Shape (2 * n,), n a power of two: of the n bins below 0, then of the n above.
        doublings: How often the bins' width doubles.

    Returns:
        Counts of that shape; the array itself where nothing is to do.
    """
    if not counts.any():
        return counts
    per_side = counts.size // 2
    # After so many doublings all bins are -1 and 0, which stay what they are.
    for _ in range(min(doublings, per_side.bit_length())):
        merged = np.zeros_like(counts)
        merged[per_side // 2 : per_side // 2 + per_side] = counts[::2] + counts[1::2]
        counts = merged
    return counts
