"""How the scales of a codebook are stored: few bytes beside the codes, and the same numbers wherever they are read."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.level_type import LevelType

__all__ = [
    "FULL_SCALES",
    "LARGEST_SCALE",
    "LEAST_SHARE",
    "ScaleFormat",
    "scale_dtype",
    "scale_format",
    "scale_table",
]

# Channels with a scale of less than this share of the largest one are dead: training drove them to zero. In float16 it
# still keeps four bits, as many as the weights that it scales.
LEAST_SHARE = 2.0**-20

# Beyond these a power of two that scales have in common would leave what float32 holds well.
LEAST_SHARED_SCALE, MOST_SHARED_SCALE = 2.0**-90, 2.0**100

# Scales beside so few bits a weight are stored as bytes: what these lose, finer levels would not.
FEW_BITS = 4

# Above this share of the common power of two a scale is nearer to what the byte 256 would stand for.
HIGHEST_SHARE = (255.5 / 256.0) ** 4

# From this share of the common power of two on float16 rounds to the power itself.
HIGHEST_HALF = 1.0 - 2.0**-12

# What the largest scale is best brought to where levels can take the rest: a byte holds it exactly, and it may still
# grow by a quarter.
LARGEST_SCALE = (240.0 / 256.0) ** 4

_FLOAT32, _FLOAT16, _UINT8 = (np.dtype(name) for name in ("float32", "float16", "uint8"))


@dataclass(frozen=True)
class ScaleFormat:
    """How the scales of a codebook are stored: numbers of a type, all times the same power of two.

    Bytes are indices into `scale_table`, the fourth powers of even steps: a scale is kept to within 1 to 2 % where it
    is at least a thirtieth of the largest one, 5 % at a thousandth, 15 % at a hundred thousandth.

    Attributes:
        dtype: float32, float16 or uint8.
        exponent: Of the power of two; 0 where the type holds the scales as they are.
    """

    dtype: np.dtype[Any]
    exponent: int = 0

    def stored(self, scales: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
        """The numbers to store, of the type."""
        with np.errstate(over="ignore"):
            shares = np.ldexp(scales.astype(np.float64), -self.exponent)
            if self.dtype == _UINT8:
                shares = np.clip(np.rint(256.0 * shares**0.25), 1.0, 255.0)
            return shares.astype(self.dtype)

    def loaded(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The scales that stored numbers stand for."""
        shares = scale_table()[stored] if self.dtype == _UINT8 else stored
        return np.ldexp(shares.astype(np.float64), self.exponent)

    def rounded(self, scales: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """What comes back of scales."""
        return self.loaded(self.stored(scales))


FULL_SCALES = ScaleFormat(_FLOAT32)
"""As they are."""


def scale_dtype(level_type: LevelType, bits: float) -> np.dtype[Any]:
    """The type in which scales of several rows are stored.

    Args:
        level_type: How the levels are stored.
        bits: Bits of a code, for each weight that it stands for: where they are few, so are the digits that a scale
            needs.
    """
    if level_type is LevelType.FLOAT32:
        return _FLOAT32
    return _UINT8 if bits <= FEW_BITS else _FLOAT16


def scale_format(level_type: LevelType, bits: float, scales: npt.NDArray[np.floating]) -> ScaleFormat:
    """The format for scales beside levels of a type: with a shared exponent where its numbers alone lose digits.

    Args:
        level_type: How the levels are stored.
        bits: Bits of a code, for each weight that it stands for.
        scales: Float array, any shape, positive.
    """
    dtype, largest = scale_dtype(level_type, bits), float(scales.max())
    if dtype == _FLOAT32 or not LEAST_SHARED_SCALE <= largest <= MOST_SHARED_SCALE:
        return FULL_SCALES
    exponent = math.frexp(largest)[1]
    share = math.ldexp(largest, -exponent)
    if dtype == _FLOAT16:
        # The largest one lands just below float16's own limit, so that those far smaller keep all their digits. What is
        # asked is asked of rounded scales: what a format makes of scales asks for that format again.
        wide = ScaleFormat(dtype, exponent - 15 + (share >= HIGHEST_HALF))
        rounded = wide.rounded(scales)
        held = rounded.min() >= LEAST_SHARE and rounded.max() <= float(np.finfo(np.float16).max)
        return ScaleFormat(dtype) if held else wide
    # The least power of two under which the largest scale is still nearest to a table's entry.
    return ScaleFormat(dtype, exponent + (share >= HIGHEST_SHARE))


def scale_table() -> npt.NDArray[np.float32]:
    """What bytes stand for, float32 array, shape (256,): (byte / 256)**4, as the rounded square of a square."""
    squares = np.square(np.arange(256, dtype=np.float32) / 256)
    return np.square(squares)
