"""Which of a few ascending levels is nearest to each value, by a table of the values' leading bits."""

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["nearest_codes", "round_down"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Below this a table of 65536 entries costs more than it saves.
FEWEST_FOR_TABLE = 32768


def nearest_codes(values: FloatArray, levels: Float64Array) -> npt.NDArray[np.uint8]:
    """Finds the index of the nearest level for every value; halfway between two levels, the lower one.

    For float32 values there are a table, of the 65536 values of the upper 16 bits, and one comparison; nothing
    is sorted or searched.

    Args:
        values: Float array, any shape.
        levels: Shape (k,), ascending, 1 to 256 of them.

    Returns:
        uint8 array of the values' shape.

    Raises:
        ParameterError: A value or level is not finite, or the levels do not ascend or are too many.

    Example:
        >>> nearest_codes(np.array([[-3.0, 0.5], [0.6, 9.0]]), np.array([0.0, 1.0]))
        array([[0, 0],
               [1, 1]], dtype=uint8)
    """
    kept = np.asarray(levels, dtype=np.float64)
    if kept.ndim != 1 or not 1 <= kept.size <= 256 or not np.isfinite(kept).all() or (np.diff(kept) <= 0).any():
        raise ParameterError("Levels must be finite and ascending, 1 to 256 of them.")
    given = np.asarray(values)
    if not np.isfinite(given).all():
        raise ParameterError("Values must be finite.")
    # Halved before they are added, so that the sum of two huge levels does not overflow.
    halfway = kept[:-1] / 2.0 + kept[1:] / 2.0
    if given.dtype == np.float32 and given.size >= FEWEST_FOR_TABLE:
        return _by_table(given, round_down(halfway))
    return np.searchsorted(halfway, given).astype(np.uint8)


def round_down(bounds: Float64Array) -> Float32Array:
    """The largest float32 values not above the bounds: a float32 value is above either or neither.

    Example:
        >>> round_down(np.array([0.5, 1e300]))
        array([5.0000000e-01, 3.4028235e+38], dtype=float32)
    """
    with np.errstate(over="ignore"):
        rounded = bounds.astype(np.float32)
    return np.where(rounded > bounds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _by_table(values: Float32Array, bounds: Float32Array) -> npt.NDArray[np.uint8]:
    """Counts for each value the bounds below it.

    The values that share their upper 16 bits are a short interval. A table has how many bounds lie below all of
    it, so that only the bounds within are left to compare with: none or one, mostly.
    """
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lowest = np.where(upper >> 31 == 0, upper, upper | 0xFFFF).view(np.float32)
    highest = np.where(upper >> 31 == 0, upper | 0xFFFF, upper).view(np.float32)
    table = np.searchsorted(bounds, lowest).astype(np.uint8)
    # What is above the last bound is compared with infinity. NaN patterns occur in no value.
    padded = np.append(bounds, np.float32(np.inf))
    finite = np.isfinite(lowest) & np.isfinite(highest)
    within = np.where(finite, np.searchsorted(bounds, highest) - table, 0)

    flat = values.reshape(-1)
    keys = (flat.view(np.uint32) >> 16).astype(np.uint16)
    codes = table[keys]
    codes += flat > padded[codes]
    if (within > 1).any():
        crowded = np.flatnonzero((within > 1)[keys])
        codes[crowded] = np.searchsorted(bounds, flat[crowded])
    return codes.reshape(values.shape)
