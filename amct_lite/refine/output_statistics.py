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
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Output positions of a sample that stand for all.
POSITIONS_PER_SAMPLE = 64

# Statistics of a layer that quantization has destroyed are no guide: its factors stay within these.
LEAST_FACTOR, LARGEST_FACTOR = 0.5, 2.0


def output_deviations(
    inputs: LayerInputs,
    weights: tuple[Float32Array, Float32Array],
    activations: Iterable[tuple[Array, Array]],
    *,
    seed: int,
    centred: bool = True,
) -> tuple[Float64Array, Float64Array]:
    """Standard deviation of each output channel over samples and chosen positions, the same ones in both networks.

    Args:
        inputs: The layer's geometry.
        weights: Its weight in the float network and in the quantized one, shape (out_channels, K).
        activations: Its input in the float network and in the quantized one, batch by batch.
        seed: For the choice of positions.
        centred: About the mean; False for about zero, where no bias takes care of the mean.

    Returns:
        Those of the float network and of the quantized one, float64, shape (out_channels,).
    """
    random = np.random.default_rng(seed)
    spreads = (_Spread(inputs, weights[0]), _Spread(inputs, weights[1]))
    for pair in activations:
        if not pair[0].size:
            continue
        positions = inputs.positions(pair[0].shape, POSITIONS_PER_SAMPLE, random)
        for spread, values in zip(spreads, pair, strict=True):
            spread.add(inputs.vectors(values, positions))
    return spreads[0].deviations(centred=centred), spreads[1].deviations(centred=centred)


class _Spread:
    def __init__(self, inputs: LayerInputs, rows: Float32Array) -> None:
        self._weight = rows.reshape(inputs.layer.group, -1, rows.shape[1])
        self._sums, self._squares, self._count = np.zeros(len(rows)), np.zeros(len(rows)), 0

    def add(self, vectors: Float32Array) -> None:
        """Some input vectors, shape (groups, vectors, K)."""
        outputs = self._weight @ vectors.transpose(0, 2, 1)
        outputs = outputs.reshape(self._sums.size, -1).astype(np.float64)
        self._sums += outputs.sum(axis=1)
        self._squares += np.square(outputs).sum(axis=1)
        self._count += outputs.shape[1]

    def deviations(self, *, centred: bool) -> Float64Array:
        count = max(self._count, 1)
        mean = self._sums / count if centred else 0.0
        return np.asarray(np.sqrt(np.maximum(self._squares / count - np.square(mean), 0.0)))


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
