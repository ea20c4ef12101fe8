"""ARQ, AMCT's weight quantization: symmetric min-max, per output channel or per tensor."""

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray
from amct_lite.uniform.grid import FLT_EPSILON, MAX_SCALE

__all__ = ["dequantize_weight", "quantize_weight", "weight_scales"]


def weight_scales(weight: FloatArray, *, axis: int | None, num_bits: int = 8) -> npt.NDArray[np.float32]:
    """Takes the smallest scales that cut off no weight.

    Args:
        weight: Float array, any shape.
        axis: Axis of the output channels, which get a scale each; None for one scale for the tensor.
        num_bits: Width of a level, 2 to 8.

    Returns:
        float32 array, shape (C,), or (1,) for axis None. Channels of zeros, and those whose scale would fall
        below FLT_EPSILON, get 1.0, as in AMCT.

    Raises:
        ParameterError: A weight is NaN or infinite, or too large for a scale of at most 1 / FLT_EPSILON.

    Example:
        >>> weight_scales(np.array([[127.0, -3.0], [-64.0, 1.0]], dtype=np.float32), axis=0)
        array([1. , 0.5], dtype=float32)
    """
    _check_num_bits(num_bits)
    others = None if axis is None else tuple(a for a in range(weight.ndim) if a != axis % weight.ndim)
    low = np.atleast_1d(weight.min(axis=others, initial=0.0)).astype(np.float64)
    high = np.atleast_1d(weight.max(axis=others, initial=0.0)).astype(np.float64)
    scales = np.maximum(high / (2 ** (num_bits - 1) - 1), -low / 2 ** (num_bits - 1))
    if not np.isfinite(scales).all():
        raise ParameterError(
            f"Weights must be finite. {np.count_nonzero(~np.isfinite(scales))} of {scales.size} channels have"
            " NaN or infinite values."
        )
    if (scales > MAX_SCALE).any():
        raise ParameterError(
            f"The largest weight needs the scale {scales.max()}, greater than 1 / FLT_EPSILON.",
            remedy="Skip the layer.",
        )
    return np.where(scales < FLT_EPSILON, 1.0, scales).astype(np.float32)


def quantize_weight(
    weight: FloatArray, scales: npt.NDArray[np.float32], *, axis: int | None, num_bits: int = 8
) -> npt.NDArray[np.int8]:
    """Rounds weights to levels: clip(round(weight / scale)), half to even.

    Args:
        weight: Float array, any shape; taken as float32.
        scales: Shape (C,), or (1,) for axis None.
        axis: Axis of the channels that the scales belong to, or None.
        num_bits: Width of a level, 2 to 8.

    Returns:
        int8 array of the weight's shape.

    Example:
        >>> scales = np.array([1.0, 0.5], dtype=np.float32)
        >>> quantize_weight(np.array([[127.0, -3.0], [-64.0, 1.0]]), scales, axis=0)
        array([[ 127,   -3],
               [-128,    2]], dtype=int8)
    """
    _check_num_bits(num_bits)
    levels = weight.astype(np.float32)
    levels /= _along(scales, axis, weight.ndim)
    np.rint(levels, out=levels)
    np.clip(levels, -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1, out=levels)
    if np.isnan(levels).any():
        raise ParameterError("Weights must not be NaN.")
    return levels.astype(np.int8)


def dequantize_weight(
    q: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], *, axis: int | None
) -> npt.NDArray[np.float32]:
    """Gives the weights that levels stand for: level * scale, in float32.

    Args:
        q: int8 array, any shape.
        scales: Shape (C,), or (1,) for axis None.
        axis: Axis of the channels that the scales belong to, or None.

    Returns:
        float32 array of the same shape.

    Example:
        >>> dequantize_weight(np.array([4, -2], dtype=np.int8), np.array([0.5], dtype=np.float32), axis=None)
        array([ 2., -1.], dtype=float32)
    """
    return q.astype(np.float32) * _along(scales, axis, q.ndim)


def _along(scales: npt.NDArray[np.float32], axis: int | None, ndim: int) -> npt.NDArray[np.float32]:
    """Shapes the scales so that they broadcast along the channel axis."""
    shape = [1] * ndim
    if axis is not None:
        shape[axis] = -1
    return scales.astype(np.float32, copy=False).reshape(shape)


def _check_num_bits(num_bits: int) -> None:
    if not 2 <= num_bits <= 8:
        raise ParameterError(
            f"The 'num_bits' parameter of ARQ must be an int in the range [2, 8]. Got {num_bits} instead."
        )
