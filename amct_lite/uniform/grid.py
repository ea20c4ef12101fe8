"""From a clip range to a uniform grid, and values onto the grid and back."""

import math

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import ClipRange, Grid, IntArray

__all__ = ["FLT_EPSILON", "MAX_SCALE", "dequantize", "grid_from_range", "quantize"]

FLT_EPSILON = float(np.finfo(np.float32).eps)
"""AMCT's smallest scale; what is smaller counts as a tensor without signal and gets scale 1.0."""

MAX_SCALE = 1.0 / FLT_EPSILON
"""AMCT's largest scale: devices store 1 / scale, which must not fall below FLT_EPSILON."""


def grid_from_range(clip: ClipRange, *, num_bits: int = 8, with_offset: bool) -> Grid:
    """Lays the finest grid over a clip range, by AMCT's min-max formulas.

    With offset, scale = (high - low) / (2**n - 1) and the offset is the level of 0. Without, the scale is the
    larger one of high / (2**(n-1) - 1) and |low| / 2**(n-1), so that neither end is cut off. The scale is
    rounded to float32 before the offset is taken, because float32 is what a record holds.

    Args:
        clip: The interval to represent. It is widened to contain 0.
        num_bits: Width of a level, 2 to 16.
        with_offset: Whether 0 may stand on another level than 0.

    Returns:
        The grid; scale 1.0 where the range is too narrow to give a scale of at least FLT_EPSILON.

    Raises:
        ParameterError: An end of the range is NaN or infinite, or the scale would exceed 1 / FLT_EPSILON.

    Example:
        >>> grid_from_range(ClipRange(-1.0, 254.0), with_offset=True)
        Grid(scale=1.0, offset=-127, num_bits=8)
        >>> grid_from_range(ClipRange(-64.0, 127.0), with_offset=False)
        Grid(scale=1.0, offset=0, num_bits=8)
    """
    _check_num_bits(num_bits)
    low, high = min(clip.low, 0.0), max(clip.high, 0.0)
    if not (math.isfinite(clip.low) and math.isfinite(clip.high)):
        raise ParameterError(f"A clip range must have finite ends. Got [{clip.low}, {clip.high}] instead.")
    if with_offset:
        scale = (high - low) / (2**num_bits - 1)
    else:
        scale = max(high / (2 ** (num_bits - 1) - 1), -low / 2 ** (num_bits - 1))
    if scale > MAX_SCALE:
        raise ParameterError(
            f"The clip range [{low}, {high}] needs a scale greater than 1 / FLT_EPSILON, which devices cannot hold.",
            remedy="Check the data for outliers, or skip the layer.",
        )
    scale = 1.0 if scale < FLT_EPSILON else float(np.float32(scale))
    if not with_offset:
        return Grid(scale, 0, num_bits)
    q_min, q_max = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1
    # Half away from zero, as AMCT's calibration rounds (its run time rounds half to even).
    offset = q_min + math.floor(-low / scale + 0.5)
    return Grid(scale, min(offset, q_max), num_bits)


def quantize(x: npt.ArrayLike, grid: Grid) -> npt.NDArray[np.int8] | npt.NDArray[np.int16]:
    """Puts values on the grid: clip(round(x / scale) + offset), as ONNX QuantizeLinear does, bit for bit.

    Args:
        x: Real values, any shape; they are taken as float32. Infinite values go to the ends of the grid.
        grid: The grid.

    Returns:
        Levels of the same shape, int8 for up to 8 bits, int16 above.

    Raises:
        ParameterError: A value is NaN.

    Example:
        >>> quantize([0.5, 1.5, -300.0], Grid(scale=1.0, offset=3))
        array([   3,    5, -128], dtype=int8)
    """
    with np.errstate(over="ignore"):
        # A quotient beyond float32 becomes infinite and is clipped like any other.
        ratio = np.divide(np.asarray(x, dtype=np.float32), np.float32(grid.scale))
    # Clipping before the offset is added keeps every sum exact in float32.
    levels = np.clip(np.rint(ratio), grid.q_min - grid.offset, grid.q_max - grid.offset)
    if np.isnan(levels).any():
        raise ParameterError("Values to quantize must not be NaN.")
    levels += np.float32(grid.offset)
    return levels.astype(np.int8) if grid.num_bits <= 8 else levels.astype(np.int16)


def dequantize(q: IntArray, grid: Grid) -> npt.NDArray[np.float32]:
    """Gives the values that levels stand for: (q - offset) * scale, in float32.

    Args:
        q: Levels, integer array of any shape.
        grid: The grid.

    Returns:
        float32 array of the same shape.

    Example:
        >>> dequantize(np.array([3, 5], dtype=np.int8), Grid(scale=0.5, offset=3))
        array([0., 1.], dtype=float32)
    """
    steps = np.asarray(q).astype(np.int32) - grid.offset
    return np.asarray(steps.astype(np.float32) * np.float32(grid.scale), dtype=np.float32)


def _check_num_bits(num_bits: int) -> None:
    if not 2 <= num_bits <= 16:
        raise ParameterError(f"The 'num_bits' parameter must be an int in the range [2, 16]. Got {num_bits} instead.")
