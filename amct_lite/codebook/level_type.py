"""The types in which the levels of a codebook are stored."""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["LevelType", "float_type"]

# Below 2**-14 float16 loses digits; the largest level lies well above that.
LEAST_FLOAT16 = 2.0**-8


class LevelType(StrEnum):
    """How the levels of a table are stored; `scale_format.scale_dtype` says how scales are."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"

    @property
    def size_bytes(self) -> int:
        """Bytes of one stored level."""
        return np.dtype(self.value).itemsize


def float_type(wanted: LevelType, levels: npt.NDArray[np.float64], scales: npt.NDArray[np.float64]) -> LevelType:
    """float16 where it was asked for and can hold the levels under the largest scale, else float32.

    Args:
        wanted: FLOAT16 or FLOAT32.
        levels: float64 array, any shape.
        scales: float64 array, any shape, positive.
    """
    largest = float(np.abs(levels).max()) * float(scales.max())
    fits = LEAST_FLOAT16 <= largest <= float(np.finfo(np.float16).max)
    return wanted if fits or largest == 0.0 else LevelType.FLOAT32
