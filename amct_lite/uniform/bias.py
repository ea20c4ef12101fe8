"""Bias as int32 at scale_w * scale_d, and weight scales that keep it from overflowing."""

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["quantize_bias", "raise_scales_for_bias"]

INT32_MAX = 2**31 - 1

# The weight scale and its product with scale_d are each rounded to float32 (relative 2**-24), so that a level
# near 2**31 can come out up to 256 higher than planned.
ROUNDING_MARGIN = 1024


def quantize_bias(bias: FloatArray, scale_w: npt.NDArray[np.float32], scale_d: float) -> npt.NDArray[np.int32]:
    """Rounds a bias to int32 levels of the accumulator: round(bias / (scale_w * scale_d)), half to even.

    The product is rounded to float32 first, because that is the scale a deployed model carries.

    Args:
        bias: Float array, shape (C,).
        scale_w: Weight scales, shape (C,) or (1,).
        scale_d: Scale of the layer's input.

    Returns:
        int32 array, shape (C,).

    Raises:
        ParameterError: A level exceeds int32, or a value is not finite.

    Example:
        >>> quantize_bias(np.array([1.0, -0.26]), np.array([0.5, 0.25], dtype=np.float32), 0.5)
        array([ 4, -2], dtype=int32)
    """
    levels = np.rint(_exact_levels(bias, scale_w, scale_d))
    # The range is kept symmetric, so that an accumulator can negate it.
    overflowing = np.abs(levels) > INT32_MAX
    if overflowing.any():
        raise ParameterError(
            f"The quantized bias of {np.count_nonzero(overflowing)} of {levels.size} channels exceeds int32.",
            remedy="Raise the weight scales with raise_scales_for_bias, or skip the layer.",
        )
    return levels.astype(np.int32)


def raise_scales_for_bias(
    bias: FloatArray, scale_w: npt.NDArray[np.float32], scale_d: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Raises weight scales just enough for the bias to fit int32.

    Args:
        bias: Float array, shape (C,).
        scale_w: Weight scales, shape (C,) or (1,). A single one is raised for its neediest channel.
        scale_d: Scale of the layer's input.

    Returns:
        The new scales, float32, and which were raised, bool; both of the shape of scale_w.

    Raises:
        ParameterError: A value is not finite or a scale is not positive.

    Example:
        >>> scales, raised = raise_scales_for_bias(
        ...     np.array([0.5, 1.0e6]), np.array([1e-3, 1e-6], dtype=np.float32), 0.01)
        >>> raised
        array([False,  True])
        >>> int(quantize_bias(np.array([0.5, 1.0e6]), scales, 0.01)[1]) > 2**30
        True
    """
    limit = INT32_MAX - ROUNDING_MARGIN
    excess = np.abs(_exact_levels(bias, scale_w, scale_d)) > limit
    needed = np.abs(bias.astype(np.float64)) / (limit * float(np.float32(scale_d)))
    if scale_w.size == 1:
        excess = np.array([bool(excess.any())])
        needed = np.array([needed.max(initial=0.0)])
    # The next float32 upwards undoes a rounding downwards.
    upwards = np.nextafter(needed.astype(np.float32), np.float32(np.inf))
    new = np.where(excess, np.maximum(upwards, scale_w), scale_w).astype(np.float32)
    if not np.isfinite(new).all():
        raise ParameterError("The bias is too large for any weight scale.", remedy="Skip the layer.")
    return new, excess


def _exact_levels(bias: FloatArray, scale_w: npt.NDArray[np.float32], scale_d: float) -> npt.NDArray[np.float64]:
    """Divides in float64 by the float32 product of the scales."""
    scales = scale_w.astype(np.float32)
    if not (np.isfinite(scales).all() and (scales > 0).all() and np.isfinite(scale_d) and scale_d > 0):
        raise ParameterError("The scales of weight and data must be finite and greater than 0.")
    if not np.isfinite(bias).all():
        raise ParameterError("The bias must be finite.")
    product = (scales * np.float32(scale_d)).astype(np.float64)
    values = bias.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A product that underflows to 0 makes every bias but 0 overflow.
        return np.where(values == 0.0, 0.0, values / product)
