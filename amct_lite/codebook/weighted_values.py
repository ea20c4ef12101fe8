"""Values in ascending order, each with its weight: what exact clustering starts from."""

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["NO_WEIGHT", "SortedArray", "checked_values", "sorted_values"]

Float64Array = npt.NDArray[np.float64]
SortedArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# A share of the heaviest weight that counts as none: close to it a weight times a square loses its digits.
NO_WEIGHT = 1e-200

_BELOW_SIGN = np.int32(0x7FFFFFFF)


def checked_values(values: FloatArray, weights: FloatArray | None) -> tuple[SortedArray, Float64Array | None]:
    """Values that can be clustered.

    Args:
        values: Float array, any shape.
        weights: Broadcastable to values, non-negative; None, or zeros only, for all alike.

    Returns:
        The values, flat, float32 where they were no wider, else float64; and their weights, float64 array of the same
        shape (n,), or None where all are alike.

    Raises:
        ParameterError: There is no value, a value or weight is not finite, or a weight is negative or does not fit
            the values.
    """
    given = np.asarray(values)
    if given.size == 0:
        raise ParameterError("There must be at least one value.")
    # float32 is worked on fastest, and in float64 its squares neither overflow nor vanish.
    flat: SortedArray
    if given.dtype in (np.float16, np.float32):
        flat = given.reshape(-1).astype(np.float32, copy=False)
    else:
        flat = given.reshape(-1).astype(np.float64, copy=False)
    if not np.isfinite(flat).all():
        raise ParameterError("Values must be finite.")
    return flat, None if weights is None else _checked(weights, given.shape)


def sorted_values(values: SortedArray, weights: Float64Array | None) -> tuple[SortedArray, Float64Array | None]:
    """Sorts the values that have a weight.

    Args:
        values: float32 or float64 array, shape (n,).
        weights: Shape (n,), or None.

    Returns:
        Both, ascending by the values.

    Example:
        >>> sorted_values(np.array([3.0, -1.0, 2.0, 7.0], np.float32), np.array([1.0, 1.0, 0.5, 0.0]))
        (array([-1.,  2.,  3.], dtype=float32), array([1. , 0.5, 1. ]))
    """
    if weights is None:
        ordered = values.copy()
        ordered.sort()
        return ordered, None
    counted = weights > NO_WEIGHT * weights.max()
    if not counted.all():
        values, weights = values[counted], weights[counted]
    if values.dtype == np.float32:
        return _sorted_floats(values, weights)
    order = np.argsort(values)
    return values[order], weights[order]


def _checked(weights: FloatArray, shape: tuple[int, ...]) -> Float64Array | None:
    """float64, one for each value, flat; None where no value has a weight."""
    given = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(given).all() and (given >= 0.0).all()):
        raise ParameterError("Weights must be finite and not negative.")
    try:
        each = np.broadcast_to(given, shape).reshape(-1)
    except ValueError as error:
        raise ParameterError(f"Weights of shape {given.shape} do not fit values of shape {shape}.") from error
    return each if given.any() else None


def _sorted_floats(values: SortedArray, weights: Float64Array) -> tuple[SortedArray, Float64Array]:
    """Sorts numbers of 64 bits, a value above the number of its weight: half the time of an argsort.

    The bits of float32 values ascend with them, but for negative ones, whose order is turned.
    """
    bits = values.view(np.int32)
    keys = (bits ^ ((bits >> 31) & _BELOW_SIGN)).astype(np.int64)
    keys <<= 32
    keys |= np.arange(weights.size)
    keys.sort()
    numbers = keys.astype(np.uint32)
    keys >>= 32
    bits = keys.astype(np.int32)
    bits ^= (bits >> 31) & _BELOW_SIGN
    return bits.view(np.float32), weights[numbers]
