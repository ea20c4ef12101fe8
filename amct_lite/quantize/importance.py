"""How much each weight counts at its layer's output: the mean square of the input channel that it multiplies."""

import numpy as np

from amct_lite.types import FloatArray, Layer, LayerKind

__all__ = ["weight_importance"]


def weight_importance(layer: Layer, mean_squares: FloatArray) -> FloatArray:
    """Spread the input's channel mean squares over a weight's axes.

    An error d in a weight adds d**2 * E[x**2] to the output's mean squared error where inputs are uncorrelated: the
    diagonal of the Hessian of the layer's squared output error (LeCun et al. 1989, "Optimal Brain Damage", eq. 5).

    Args:
        layer: A layer with weights.
        mean_squares: E[x**2] of each channel of its input, shape (in_channels,).

    Returns:
        float64 array that broadcasts against the stored weight; ones where the sizes do not match.
    """
    shape, out_axis = layer.weight_shape, layer.output_channel_axis
    in_axis = 1 - out_axis
    per_group = shape[in_axis]
    if layer.kind is LayerKind.CONVOLUTION and layer.group > 1:
        if mean_squares.size != per_group * layer.group:
            return np.ones((1,) * len(shape))
        rows = np.repeat(mean_squares.reshape(layer.group, per_group), shape[out_axis] // layer.group, axis=0)
        return rows.reshape(rows.shape + (1,) * (len(shape) - 2))
    if mean_squares.size != per_group:
        return np.ones((1,) * len(shape))
    return mean_squares.reshape([per_group if axis == in_axis else 1 for axis in range(len(shape))])
