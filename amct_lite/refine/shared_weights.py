"""Moments of the inputs of all layers that share a weight, which have to agree on what becomes of it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.least_squares import output_power
from amct_lite.codebook.second_moments import SecondMoments, mean_of

__all__ = ["shared_moments"]

Float64Array = npt.NDArray[np.float64]

# A layer whose output is weaker than this share of another's, with the same weight, is taken for silent.
LEAST_POWER = 1e-9


def shared_moments(
    weight: Float64Array, everywhere: Sequence[Sequence[SecondMoments]], *, centred: bool
) -> list[SecondMoments]:
    """The moments of several layers as those of one, each layer counting by its relative error.

    Args:
        weight: float64 array, shape (groups, rows, K): the weight that they share.
        everywhere: For each layer, the moments of its inputs by parts of the samples.
        centred: About the means, for layers whose biases take care of these.

    Returns:
        The moments of each part; of all samples together where the layers have them in different numbers of parts.
    """
    if len({len(parts) for parts in everywhere}) > 1:
        everywhere = [[mean_of(parts)] for parts in everywhere]
    if centred:
        everywhere = [[each.centred() for each in parts] for parts in everywhere]
    importances = _importances(weight, list(map(mean_of, everywhere))) if len(everywhere) > 1 else None
    return [mean_of(part, importances) for part in zip(*everywhere, strict=True)]


def _importances(weight: Float64Array, moments: Sequence[SecondMoments]) -> list[float]:
    """One over the power of each layer's output: layers that share a weight count by their relative errors."""
    powers = [output_power(weight, each.quadratic) for each in moments]
    least = LEAST_POWER * max(powers)
    return [1.0 / max(power, least) if least > 0.0 else 1.0 for power in powers]
