"""Many values thrown into fine bins: what clustering starts from where sorting them would take most of its time.

A bin is as wide as the last bit that is kept of a float: wide far from zero, where levels are far apart. Floats get
ever finer towards zero, which levels do not; so the values are moved away from it by their mean magnitude first.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.segment_costs import Points
from amct_lite.codebook.weighted_values import NO_WEIGHT

__all__ = ["BinnedValues", "bin_values"]

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

# Bits of a float32 behind the first one, and the place of its sign.
MANTISSA_BITS, SIGN_BIT = 23, 31

# On each side of zero. Values that want more lie so far apart that most bins would be empty.
MOST_BINS = 1 << 16

# Weights beyond these may leave float64 when they are added up or multiplied by squares.
LEAST_WEIGHT, MOST_WEIGHT = 2.0**-300, 2.0**300

# Values that are counted at a time: what is worked on stays in the cache, and adding up the bins costs little beside.
BLOCK = 1 << 18


class BinnedValues(NamedTuple):
    """Weighted values in bins.

    Attributes:
        points: One for each bin that is not empty; zeros have one of their own.
        inner_error: Sum of weight * (value - its bin's mean)**2.
        most_inner_error: The same if the values of each bin lay at its two ends.
    """

    points: Points
    inner_error: float
    most_inner_error: float


def bin_values(values: Float32Array, weights: Float64Array | None, num_bits: int) -> BinnedValues | None:
    """Makes a point of the values of each bin.

    Args:
        values: float32 array, shape (n,), finite.
        weights: Shape (n,), non-negative and not all 0; None for all alike.
        num_bits: How many bits behind the first one tell two bins apart, 1 to 23.

    Returns:
        The bins; None where there would be too many, or where their sums could leave float64.

    Example:
        >>> bin_values(np.array([1.0, 4.0, 4.0009765625, 0.0], np.float32), None, 4).points
        Points(mass=array([1., 1., 2.]), mean=array([0.        , 1.        , 4.00048828]))
    """
    if weights is not None and not LEAST_WEIGHT <= weights.max() <= MOST_WEIGHT:
        return None
    magnitudes = np.abs(values)
    moved_by = magnitudes.mean(dtype=np.float64).astype(np.float32)
    largest = magnitudes.max() + moved_by
    if moved_by < np.finfo(np.float32).tiny or np.isinf(largest):
        return None
    shift = MANTISSA_BITS - num_bits
    lowest, highest = (int(end.view(np.uint32)) >> shift for end in (moved_by, largest))
    size = highest - lowest + 1
    if size > MOST_BINS:
        return None
    # The bins of values from 0 up, then the same for those below.
    mass, moment = np.zeros((2, 2 * size))
    of_zeros = square = 0.0
    for start in range(0, values.size, BLOCK):
        part = values[start : start + BLOCK]
        own = None if weights is None else weights[start : start + BLOCK]
        zero = part == 0.0
        if zero.any():
            of_zeros += float(zero.sum() if own is None else own[zero].sum())
            part, own = part[~zero], None if own is None else own[~zero]
        bits = (np.copysign(moved_by, part) + part).view(np.uint32)
        bins = (bits >> np.uint32(shift)).astype(np.intp)
        bins -= lowest
        bins -= (bits >> np.uint32(SIGN_BIT)) * np.intp((1 << (SIGN_BIT - shift)) - size)
        weighted = part.astype(np.float64) if own is None else part * own
        mass += np.bincount(bins, own, minlength=mass.size)
        moment += np.bincount(bins, weighted, minlength=mass.size)
        weighted *= part
        square += float(weighted.sum())
    return _ascending(mass.reshape(2, size), moment.reshape(2, size), of_zeros, square, lowest, shift)


def _ascending(
    mass: Float64Array, moment: Float64Array, of_zeros: float, square: float, lowest: int, shift: int
) -> BinnedValues:
    """Bins of both signs, with the zeros between them, as points."""
    size = mass.shape[1]
    ordered = np.concatenate([mass[1, ::-1], [of_zeros], mass[0]])
    filled = ordered > NO_WEIGHT * ordered.max()
    masses = ordered[filled]
    means = np.concatenate([moment[1, ::-1], [0.0], moment[0]])[filled] / masses
    edges = (np.arange(lowest, lowest + size + 1, dtype=np.uint32) << np.uint32(shift)).view(np.float32)
    widths = np.diff(edges.astype(np.float64))
    most = float(np.sum(mass * np.square(widths / 2.0)))
    inner = max(0.0, square - float(np.sum(masses * np.square(means))))
    return BinnedValues(Points(masses, means), min(inner, most), most)
