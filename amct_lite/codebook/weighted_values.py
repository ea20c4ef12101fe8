"""Values in ascending order, each with its weight: what clustering starts from, and where most of its time goes."""

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["SortedArray", "sorted_values"]

Float64Array = npt.NDArray[np.float64]
SortedArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# A share of the heaviest weight that counts as none: close to it a weight times a square loses its digits.
NO_WEIGHT = 1e-200

_BELOW_SIGN = np.int32(0x7FFFFFFF)


def sorted_values(values: FloatArray, weights: FloatArray | None) -> tuple[SortedArray, Float64Array | None]:
    """Sorts the values that have a weight.

    Args:
        values: Float array, any shape.
        weights: Broadcastable to values, non-negative; None, or zeros only, for all alike.

    Returns:
        The values, ascending, float32 where they were no wider, else float64; and their weights, float64 array of
        the same shape (n,), or None where all are alike.

    Raises:
        ParameterError: There is no value, a value or weight is not finite, or a weight is negative or does not fit
            the values.

    Example:
        >>> sorted_values(np.array([[3.0, -1.0], [2.0, 7.0]], np.float32), np.array([[1.0], [0.5]]))
        (array([-1.,  2.,  3.,  7.], dtype=float32), array([1. , 0.5, 1. , 0.5]))
    """
    given = np.asarray(values)
    if given.size == 0:
        raise ParameterError("There must be at least one value.")
    # float32 is sorted fastest, and in float64 its squares neither overflow nor vanish.
    given = given.astype(np.float32 if given.dtype in (np.float16, np.float32) else np.float64, copy=False)
    if not np.isfinite(given).all():
        raise ParameterError("Values must be finite.")
    masses = None if weights is None else _checked(weights, given.shape)
    if masses is None:
        return np.sort(given, axis=None), None
    counted = masses > NO_WEIGHT * masses.max()
    if not counted.all():
        counted = np.broadcast_to(counted, given.shape)
        given, masses = given[counted], np.broadcast_to(masses, given.shape)[counted]
    if given.dtype == np.float32:
        return _sorted_floats(given, masses)
    order = np.argsort(given, axis=None)
    return given.reshape(-1)[order], np.broadcast_to(masses, given.shape).reshape(-1)[order]


def _checked(weights: FloatArray, shape: tuple[int, ...]) -> Float64Array | None:
    """float64, with as many axes as the values; None where no value has a weight."""
    given = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(given).all() and (given >= 0.0).all()):
        raise ParameterError("Weights must be finite and not negative.")
    try:
        np.broadcast_to(given, shape)
    except ValueError as error:
        raise ParameterError(f"Weights of shape {given.shape} do not fit values of shape {shape}.") from error
    return given if given.any() else None


def _sorted_floats(values: npt.NDArray[np.float32], weights: Float64Array) -> tuple[SortedArray, Float64Array]:
    """Sorts numbers of 64 bits, a value above the number of its weight: half the time of an argsort.

    The bits of float32 values ascend with them, but for negative ones, whose order is turned.
    """
    bits = np.ascontiguousarray(values).view(np.int32)
    keys = (bits ^ ((bits >> 31) & _BELOW_SIGN)).astype(np.int64)
    keys <<= 32
    keys |= np.arange(weights.size).reshape(weights.shape)
    keys = keys.reshape(-1)
    keys.sort()
    numbers = keys.astype(np.uint32)
    keys >>= 32
    bits = keys.astype(np.int32)
    bits ^= (bits >> 31) & _BELOW_SIGN
    return bits.view(np.float32), weights.reshape(-1)[numbers]
