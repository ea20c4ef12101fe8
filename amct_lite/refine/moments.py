"""Second moments of a layer's inputs in the quantized network, paired with those in the float network."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.second_moments import SecondMoments
from amct_lite.errors import CalibrationError
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.types import Layer

__all__ = ["fold_moments"]

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Output positions of a sample that stand for all: neighbours say much the same.
POSITIONS_PER_SAMPLE = 192

# With groups each output channel has few weights of its own to settle, and there are many channels: positions per
# weight, and the fewest of them.
POSITIONS_PER_GROUPED_WEIGHT = 4
LEAST_POSITIONS = 32

# float32 values of input vectors held at a time (128 MiB).
MAX_VALUES = 2**25


def fold_moments(
    inputs: LayerInputs, activations: Iterable[tuple[Array, Array]], *, seed: int
) -> tuple[SecondMoments, ...]:
    """Sums over samples and chosen output positions, the same ones in both networks, by halves of the samples.

    What is fitted to one half can be tried on the other.

    Args:
        inputs: The layer's geometry.
        activations: The layer's input in the float network and in the quantized one, batch by batch.
        seed: For the choice of positions.

    Returns:
        Two moments; one alone where there is but one sample.

    Raises:
        CalibrationError: The inputs are not finite, or there are none.
    """
    folds = (_Sums(), _Sums())
    for fold, x, z in _vectors_by_fold(inputs, activations, np.random.default_rng(seed)):
        folds[fold].add(x, z)
    seen = tuple(found for fold in folds if (found := fold.moments()) is not None)
    if not seen:
        raise CalibrationError(
            f"Its input {inputs.layer.activation!r} had no values in any batch.",
            layer=inputs.layer.name,
            remedy="Calibrate with data that reaches the layer, or add the layer to skip_layers.",
        )
    if not all(np.isfinite(part).all() for fold in seen for part in (fold.quadratic, fold.cross)):
        raise CalibrationError(
            f"Its input {inputs.layer.activation!r} is not finite.",
            layer=inputs.layer.name,
            remedy="Check the data's preprocessing, and that the float model is sound on it.",
        )
    return seen


def _vectors_by_fold(
    inputs: LayerInputs, activations: Iterable[tuple[Array, Array]], random: np.random.Generator
) -> Iterator[tuple[int, Float32Array, Float32Array]]:
    """Which half, and vectors of the quantized and the float network, shape (groups, vectors, K)."""
    alone = 0
    for z_all, x_all in activations:
        if not x_all.size:
            continue
        positions = inputs.positions(x_all.shape, _positions_per_sample(inputs.layer), random)
        for part in _parts(x_all.shape, positions, inputs):
            x, z = (inputs.vectors(values[part], positions[part]) for values in (x_all, z_all))
            if len(x_all[part]) < 2 or x.shape[1] < 2:
                yield alone % 2, x, z
                alone += 1
                continue
            # Vectors lie sample by sample, so the halves share none: neighbouring positions say much the same.
            half = len(x_all[part]) // 2 * x.shape[1] // len(x_all[part])
            yield 0, x[:, :half], z[:, :half]
            yield 1, x[:, half:], z[:, half:]


def _positions_per_sample(layer: Layer) -> int:
    if layer.group == 1:
        return POSITIONS_PER_SAMPLE
    weights = layer.num_weights // layer.weight_shape[layer.output_channel_axis]
    return min(POSITIONS_PER_SAMPLE, max(LEAST_POSITIONS, POSITIONS_PER_GROUPED_WEIGHT * weights))


class _Sums:
    """Sums over the vectors of one half, added up in place: a layer's matrices can be large."""

    def __init__(self) -> None:
        self._sums: list[Float64Array] = []
        self._count = 0

    def add(self, x: Float32Array, z: Float32Array) -> None:
        """Some vectors of the quantized and the float network, shape (groups, vectors, K), no more than fit float32."""
        ones = np.ones(x.shape[1], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            products = (x.transpose(0, 2, 1) @ x, z.transpose(0, 2, 1) @ x, ones @ x, ones @ z)
            if not self._sums:
                self._sums = [product.astype(np.float64) for product in products]
            else:
                for total, product in zip(self._sums, products, strict=True):
                    total += product
        self._count += x.shape[1]

    def moments(self) -> SecondMoments | None:
        """The means; None where there were no vectors."""
        if not self._sums:
            return None
        quadratic, cross, quantized_mean, float_mean = (total / self._count for total in self._sums)
        return SecondMoments(quadratic, cross, quantized_mean, float_mean, self._count)


def _parts(shape: tuple[int, ...], positions: np.ndarray, inputs: LayerInputs) -> list[slice]:
    """Slices of the samples, so that the vectors of one slice stay within the memory allowed."""
    if len(positions) == 1:
        return [slice(None)]
    taps = int(np.prod(inputs.layer.kernel_shape))
    per_sample = positions.shape[1] * shape[1] * taps
    step = max(1, MAX_VALUES // max(1, per_sample))
    return [slice(start, start + step) for start in range(0, shape[0], step)]
