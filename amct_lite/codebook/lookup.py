"""Tables from all levels of a grid to the levels kept, and how many a target compression ratio keeps."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import IntArray

__all__ = ["level_table", "levels_to_keep", "nearest_level_table"]


def nearest_level_table(levels: IntArray, q_min: int = -128, q_max: int = 127) -> npt.NDArray[np.int64]:
    """Maps every level of the grid to the nearest one kept.

    Args:
        levels: Integer array, shape (k,), ascending: the levels kept.
        q_min: The lowest level of the grid.
        q_max: The highest level of the grid.

    Returns:
        int64 array, shape (q_max - q_min + 1,), entry q - q_min for level q. Halfway between two levels, the
        lower one is taken.

    Raises:
        ParameterError: No level is given, or they do not ascend.

    Example:
        >>> nearest_level_table(np.array([-2, 0, 3]), q_min=-2, q_max=3)
        array([-2, -2,  0,  0,  3,  3])
    """
    kept = np.asarray(levels, dtype=np.int64)
    if kept.ndim != 1 or kept.size == 0 or (np.diff(kept) <= 0).any():
        raise ParameterError("Levels must be distinct and ascending, at least one.")
    # q is past the middle of two neighbours exactly when 2 * q exceeds their sum: no fraction is needed.
    return kept[np.searchsorted(kept[1:] + kept[:-1], 2 * np.arange(q_min, q_max + 1))]


def level_table(levels: IntArray, costs: Sequence[float] = ()) -> npt.NDArray[np.int64]:
    """Maps every level of the int8 grid to the one kept whose squared distance plus cost is least.

    Args:
        levels: Integer array, shape (k,), ascending: the levels kept.
        costs: One for each, not negative; () for the nearest level.

    Returns:
        int64 array, shape (256,), entry q + 128 for level q. Of two equally good ones, the lower is taken.

    Raises:
        ParameterError: No level is given, they do not ascend, or there are not as many costs.

    Example:
        >>> level_table(np.array([0, 10]), [0.0, 40.0])[128 + np.array([6, 7, 8])]
        array([ 0,  0, 10])
    """
    table = nearest_level_table(levels)
    if not len(costs):
        return table
    kept = np.asarray(levels, np.int64)
    if len(costs) != kept.size:
        raise ParameterError(f"There are {kept.size} levels and {len(costs)} costs.")
    distances = np.square(np.arange(-128, 128)[:, None] - kept) + np.asarray(costs, np.float64)
    return np.asarray(kept[np.argmin(distances, axis=1)])


def levels_to_keep(ratio: float, num_bits: int = 8) -> int:
    """Turns a target compression ratio, levels kept / original levels, into a number of levels.

    Args:
        ratio: In (0, 1].
        num_bits: Width of an original level.

    Returns:
        floor(ratio * 2**num_bits), at least 2.

    Raises:
        ParameterError: The ratio is outside (0, 1].

    Example:
        >>> levels_to_keep(0.125)
        32
    """
    if not 0.0 < ratio <= 1.0:
        raise ParameterError(
            f"The 'target_compression_ratio' parameter must be a float in the range (0, 1]. Got {ratio} instead."
        )
    # The small term keeps a ratio such as 0.29 * 100 / 100 from losing a level to float rounding.
    return max(2, math.floor(ratio * (1 << num_bits) + 1e-9))
