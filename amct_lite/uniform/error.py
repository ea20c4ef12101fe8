"""How far a quantized tensor is from the original."""

import math

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError

__all__ = ["sqnr_db"]


def sqnr_db(original: npt.ArrayLike, quantized: npt.ArrayLike) -> float:
    """Signal to quantization noise ratio, 10 * log10(sum x**2 / sum (x - x')**2), in decibels.

    Args:
        original: Real values, any shape.
        quantized: Their quantized twins, same shape.

    Returns:
        The ratio; inf where the two are equal, -inf where noise meets a signal of zeros.

    Raises:
        ParameterError: The shapes differ.

    Example:
        >>> sqnr_db([10.0, 0.0], [9.0, 0.0])
        20.0
    """
    x = np.asarray(original, dtype=np.float64)
    y = np.asarray(quantized, dtype=np.float64)
    if x.shape != y.shape:
        raise ParameterError(f"The tensors must have the same shape. Got {x.shape} and {y.shape} instead.")
    noise = float(np.sum(np.square(x - y)))
    signal = float(np.sum(np.square(x)))
    if noise == 0.0:
        return math.inf
    if signal == 0.0:
        return -math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise))
