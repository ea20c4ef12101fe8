"""Cross-layer equalization: channels between two layers are scaled so that both weights use their range equally.

Where f(s x) = s f(x) for s > 0 lies between two layers, W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1) for every
positive diagonal S (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv 1906.04721, section 4.1, eq. 8 to 11).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["equalization_scales", "equalize", "input_ranges", "magnitudes", "output_ranges"]

Float64Array = npt.NDArray[np.float64]

# A channel so far below its layer's largest holds nothing that any grid keeps, while its bias would grow with it.
NEGLIGIBLE = 1e-6
# Scales of a round within a hundredth of a percent of 1 move no level of an int8 grid.
TOLERANCE = 1e-4
MAX_ROUNDS = 200


def magnitudes(channels: npt.NDArray[np.floating]) -> Float64Array:
    """The largest magnitude that connects each input channel with each output channel.

    Args:
        channels: A weight, shape (groups, outputs per group, inputs per group, taps).

    Returns:
        float64 array, shape (groups, outputs per group, inputs per group).
    """
    found: Float64Array = np.maximum(channels.max(axis=3), -channels.min(axis=3)).astype(np.float64)
    return found


def output_ranges(magnitude: Float64Array) -> Float64Array:
    """The largest magnitude of each output channel, shape (outputs,); see `magnitudes`."""
    found: Float64Array = magnitude.max(axis=2).reshape(-1)
    return found


def input_ranges(magnitude: Float64Array) -> Float64Array:
    """The largest magnitude of each input channel, shape (inputs,); see `magnitudes`."""
    found: Float64Array = magnitude.max(axis=1).reshape(-1)
    return found


def equalization_scales(outputs: Float64Array, inputs: Float64Array) -> Float64Array:
    """The scales s with which r1 / s = r2 * s = sqrt(r1 * r2) (eq. 11).

    Args:
        outputs: r1, the first weight's range in each channel between the layers, shape (channels,).
        inputs: r2, the second weight's, same shape.

    Returns:
        float64 array of the same shape; 1 for a channel that one of the two layers as good as lacks.

    Example:
        >>> equalization_scales(np.array([4.0, 1.0]), np.array([1.0, 0.0]))
        array([2., 1.])
    """
    alive = (outputs > NEGLIGIBLE * outputs.max(initial=0.0)) & (inputs > NEGLIGIBLE * inputs.max(initial=0.0))
    return np.sqrt(np.where(alive, outputs, 1.0) / np.where(alive, inputs, 1.0))


def equalize(weights: Sequence[Float64Array], pairs: Sequence[tuple[int, int]]) -> list[Float64Array]:
    """Equalize pair by pair, again and again, until nothing moves: layers in the middle of a chain are in two pairs.

    Args:
        weights: `magnitudes` of each weight, with as many inputs as there are channels between the layers of a pair.
        pairs: Indices of the first and the second weight of each pair; no weight comes first twice, nor second.

    Returns:
        For each pair the scales s, shape (channels,): the first layer's outputs and bias are to be divided by them,
        the second layer's inputs multiplied.
    """
    current = [weight.copy() for weight in weights]
    scales = [np.ones(output_ranges(current[first]).size) for first, _ in pairs]
    for _ in range(MAX_ROUNDS):
        moved = 0.0
        for total, (first, second) in zip(scales, pairs, strict=True):
            step = equalization_scales(output_ranges(current[first]), input_ranges(current[second]))
            current[first] /= step.reshape(*current[first].shape[:2], 1)
            current[second] *= step.reshape(current[second].shape[0], 1, -1)
            total *= step
            moved = max(moved, float(np.abs(np.log(step)).max(initial=0.0)))
        if moved < TOLERANCE:
            break
    return scales
