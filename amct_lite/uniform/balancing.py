"""Balancing (AMCT's DMQ): a part of the activation's channel spread moves into the weight, which takes it better.

Per input channel Y = (X / f) (f W), with f = max|X|**a / max|W|**(1 - a): Xiao et al. 2022, "SmoothQuant", arXiv
2211.10438, eq. 4, which AMCT's `tensor_balance_factor` follows, a being its migration strength.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["balance_factors"]

# What AMCT lets a factor in a record be.
_SMALLEST, _LARGEST = 2.220446049250313e-16, 1 / 2.220446049250313e-16


def balance_factors(
    activation_maxima: npt.NDArray[np.floating], weight_maxima: npt.NDArray[np.floating], migration_strength: float
) -> npt.NDArray[np.float32]:
    """The factor of each input channel.

    Args:
        activation_maxima: max|X| of each input channel, shape (in_channels,).
        weight_maxima: max|W| of each input channel, same shape.
        migration_strength: The share a, between 0 (all spread into the activation) and 1 (all into the weight).

    Returns:
        float32 array of the same shape, > 0; 1 for a channel without values or without weights.

    Example:
        >>> balance_factors(np.array([16.0, 0.0]), np.array([0.25, 1.0]), 0.5)
        array([8., 1.], dtype=float32)
    """
    alive = (activation_maxima > 0) & (weight_maxima > 0)
    activation = np.where(alive, activation_maxima, 1.0).astype(np.float64)
    weight = np.where(alive, weight_maxima, 1.0).astype(np.float64)
    factors = activation**migration_strength / weight ** (1.0 - migration_strength)
    return np.clip(factors, _SMALLEST, _LARGEST).astype(np.float32)
