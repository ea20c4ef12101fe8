"""Weight scales with the least squared error: the largest weights are cut off where that serves all the others.

At 4 bits the range that holds every weight leaves too few levels for the many small ones (Banner et al. 2019, "Post
training 4-bit quantization of convolutional networks for rapid-deployment", arXiv 1810.05723, section 3; there in
closed form for a Laplace distribution, here by a search on the weights themselves).
"""

import numpy as np
import numpy.typing as npt

from amct_lite.types import FloatArray
from amct_lite.uniform.arq import dequantize_weight, quantize_weight, weight_scales

__all__ = ["mse_scales"]

# Shares of the range that holds every weight: a coarse search, then a fine one around its best.
COARSE_SHARES = np.linspace(1.0, 0.3, 15)
FINE_STEPS = np.linspace(-0.04, 0.04, 9)


def mse_scales(
    weight: FloatArray, *, axis: int | None, num_bits: int = 8, importance: FloatArray | None = None
) -> npt.NDArray[np.float32]:
    """Takes the scales with the least squared error after rounding to the nearest level.

    Args:
        weight: Float array, any shape.
        axis: Axis of the output channels, which get a scale each; None for one scale for the tensor.
        num_bits: Width of a level, 2 to 8.
        importance: How much each weight's error counts, broadcast against the weight; None for all alike.

    Returns:
        float32 array, shape (C,), or (1,) for axis None; never a greater error than `weight_scales` has.

    Raises:
        ParameterError: As for `weight_scales`.

    Example:
        >>> weight = np.append(np.full(50, 0.9), 4.0)[None]
        >>> mse_scales(weight, axis=0, num_bits=3) < weight_scales(weight, axis=0, num_bits=3)
        array([ True])
    """
    widest = weight_scales(weight, axis=axis, num_bits=num_bits)
    values = weight.astype(np.float32, copy=False)
    shares = np.ones(widest.shape, np.float32)
    least = _errors(values, widest, axis, num_bits, importance)
    for candidates in (COARSE_SHARES[1:], None):
        centre = shares.copy()
        for number in range(len(FINE_STEPS) if candidates is None else len(candidates)):
            if candidates is None:
                tried = np.minimum(centre + np.float32(FINE_STEPS[number]), np.float32(1.0))
            else:
                tried = np.full_like(centre, candidates[number])
            errors = _errors(values, widest * tried, axis, num_bits, importance)
            better = errors < least
            shares, least = np.where(better, tried, shares), np.where(better, errors, least)
    return (widest * shares).astype(np.float32)


def _errors(
    weight: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    axis: int | None,
    num_bits: int,
    importance: FloatArray | None,
) -> npt.NDArray[np.float64]:
    """Squared error of each channel, shape of the scales."""
    levels = quantize_weight(weight, scales, axis=axis, num_bits=num_bits)
    errors = np.square(dequantize_weight(levels, scales, axis=axis) - weight)
    if importance is not None:
        errors = errors * importance
    others = None if axis is None else tuple(a for a in range(weight.ndim) if a != axis % weight.ndim)
    return np.atleast_1d(errors.sum(axis=others, dtype=np.float64))
