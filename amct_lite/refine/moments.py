"""Second moments of a layer's inputs in the quantized network, paired with those in the float network."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.second_moments import SecondMoments, mean_of
from amct_lite.errors import CalibrationError
from amct_lite.refine.layer_inputs import LayerInputs

__all__ = ["input_moments"]

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]

# Output positions of a sample that stand for all: neighbours say much the same.
POSITIONS_PER_SAMPLE = 192

# float32 values of input vectors held at a time (128 MiB).
MAX_VALUES = 2**25


def input_moments(inputs: LayerInputs, activations: Iterable[tuple[Array, Array]], *, seed: int) -> SecondMoments:
    """Sum over samples and chosen output positions, the same ones in both networks.

    Args:
        inputs: The layer's geometry.
        activations: The layer's input in the float network and in the quantized one, batch by batch.
        seed: For the choice of positions.

    Raises:
        CalibrationError: The inputs are not finite, or there are none.
    """
    random = np.random.default_rng(seed)
    total: SecondMoments | None = None
    for z_all, x_all in activations:
        if not x_all.size:
            continue
        positions = inputs.positions(x_all.shape, POSITIONS_PER_SAMPLE, random)
        for part in _parts(x_all.shape, positions, inputs):
            x, z = (inputs.vectors(values[part], positions[part]) for values in (x_all, z_all))
            with np.errstate(over="ignore", invalid="ignore"):
                found = _moments_of(x, z)
            total = found if total is None else mean_of([total, found])
    if total is None:
        raise CalibrationError(
            f"Its input {inputs.layer.activation!r} had no values in any batch.",
            layer=inputs.layer.name,
            remedy="Calibrate with data that reaches the layer, or add the layer to skip_layers.",
        )
    if not (np.isfinite(total.quadratic).all() and np.isfinite(total.cross).all()):
        raise CalibrationError(
            f"Its input {inputs.layer.activation!r} is not finite.",
            layer=inputs.layer.name,
            remedy="Check the data's preprocessing, and that the float model is sound on it.",
        )
    return total


def _moments_of(x: Float32Array, z: Float32Array) -> SecondMoments:
    """Moments of some vectors, shape (groups, vectors, K), summed in float32 over no more than a part of a batch."""
    count = x.shape[1]
    return SecondMoments(
        quadratic=(x.transpose(0, 2, 1) @ x).astype(np.float64) / count,
        cross=(z.transpose(0, 2, 1) @ x).astype(np.float64) / count,
        quantized_mean=x.mean(axis=1, dtype=np.float64),
        float_mean=z.mean(axis=1, dtype=np.float64),
        count=count,
    )


def _parts(shape: tuple[int, ...], positions: np.ndarray, inputs: LayerInputs) -> list[slice]:
    """Slices of the samples, so that the vectors of one slice stay within the memory allowed."""
    if len(positions) == 1:
        return [slice(None)]
    taps = int(np.prod(inputs.layer.kernel_shape))
    per_sample = positions.shape[1] * shape[1] * taps
    step = max(1, MAX_VALUES // max(1, per_sample))
    return [slice(start, start + step) for start in range(0, shape[0], step)]
