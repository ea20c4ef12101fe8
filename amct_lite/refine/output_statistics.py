"""BatchNorm re-estimation: what a layer puts out keeps the mean and the spread that it has in the float network.

A BatchNormalization's statistics are those of the float network; quantization shifts them, and estimating them again
repairs much (Hubara et al. 2020, "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer
Programming", arXiv 2006.10518, section 4). Here BatchNormalization is folded, so the new statistics go where it went:
its factor into the weight's scales, its shift into the bias.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.refine.layer_inputs import LayerInputs

__all__ = ["output_deviations", "re_estimated_factors"]

Array = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]

# Output positions of a sample that stand for all.
POSITIONS_PER_SAMPLE = 64

# Statistics of a layer that quantization has destroyed are no guide: its factors stay within these.
LEAST_FACTOR, LARGEST_FACTOR = 0.5, 2.0


def output_deviations(
    inputs: LayerInputs, rows: npt.NDArray[np.float32], activations: Iterable[Array], *, seed: int
) -> Float64Array:
    """Standard deviation of each output channel over samples and chosen positions, float64, shape (out_channels,).

    Args:
        inputs: The layer's geometry.
        rows: Its weight, shape (out_channels, K).
        activations: Its input, batch by batch.
        seed: For the choice of positions.
    """
    random = np.random.default_rng(seed)
    weight = rows.reshape(inputs.layer.group, -1, rows.shape[1])
    sums, squares, count = np.zeros(len(rows)), np.zeros(len(rows)), 0
    for values in activations:
        if not values.size:
            continue
        positions = inputs.positions(values.shape, POSITIONS_PER_SAMPLE, random)
        outputs = weight @ inputs.vectors(values, positions).transpose(0, 2, 1)
        outputs = outputs.reshape(len(rows), -1).astype(np.float64)
        sums += outputs.sum(axis=1)
        squares += np.square(outputs).sum(axis=1)
        count += outputs.shape[1]
    mean = sums / max(count, 1)
    return np.asarray(np.sqrt(np.maximum(squares / max(count, 1) - np.square(mean), 0.0)))


def re_estimated_factors(wanted: Float64Array, found: Float64Array) -> Float64Array:
    """What each output channel is multiplied with, so that its deviation is as in the float network.

    Args:
        wanted: Deviations in the float network, shape (out_channels,).
        found: Those in the quantized network.

    Returns:
        float64 array of that shape, within [0.5, 2]; 1 for channels that do not vary.

    Example:
        >>> re_estimated_factors(np.array([1.0, 1.0, 0.0]), np.array([0.8, 0.1, 0.0]))
        array([1.25, 2.  , 1.  ])
    """
    silent = (found <= 0.0) | (wanted <= 0.0)
    factors = np.where(silent, 1.0, wanted / np.where(silent, 1.0, found))
    return np.asarray(np.clip(factors, LEAST_FACTOR, LARGEST_FACTOR))
