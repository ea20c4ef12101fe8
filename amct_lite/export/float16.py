"""FORCE_FP16_QUANT: the fake-quant form rounds where a device does that quantizes in float16.

Simulated are two things, and nothing else. AscendQuant works in float16: the input, the stored reciprocal of the step
and their product are each rounded to float16 before the level is taken. AscendDequant's scale has 19 bits: a float32
without its last 13 bits of mantissa ("S19"), so weights and biases are decoded as if it were the product of their
scales. Sums and what stands between layers stay float32.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ExportError
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import LayerKind

__all__ = ["decode_scale", "float16_factor", "in_simulated_precision", "to_19_bits"]

_DROPPED_BITS = np.uint32((1 << 13) - 1)


def to_19_bits(scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cut float32 numbers down to 19 bits: sign, 8 bits of exponent, 10 of mantissa.

    Example:
        >>> [float(scale) for scale in to_19_bits(np.array([1.0, 1.0009765625, 1.0009765], np.float32))]
        [1.0, 1.0009765625, 1.0]
    """
    bits = np.ascontiguousarray(scale, np.float32).view(np.uint32)
    return (bits & ~_DROPPED_BITS).view(np.float32)


def in_simulated_precision(layers: Sequence[QuantizedLayer]) -> tuple[QuantizedLayer, ...]:
    """The layers as the fake-quant form decodes them: with scales of 19 bits where they are in float16.

    Args:
        layers: Quantized layers; those that do not ask for float16 stay as they are.

    Raises:
        ExportError: A step's reciprocal is no float16 number.
    """
    return tuple(_with_short_scale(layer) if layer.float16 else layer for layer in layers)


def decode_scale(layer: QuantizedLayer) -> float:
    """What one level of a layer's activation decodes to; a pooling's own AscendDequant has 19 bits, too."""
    assert layer.grid is not None
    if layer.float16 and layer.layer.kind is LayerKind.AVERAGE_POOL:
        return float(to_19_bits(np.array([layer.grid.scale], np.float32))[0])
    return layer.grid.scale


def float16_factor(layer: QuantizedLayer) -> np.float32:
    """The reciprocal of the activation's step as float16 holds it.

    Raises:
        ExportError: It does not: it is 0 or infinite there.
    """
    assert layer.grid is not None
    with np.errstate(over="ignore", under="ignore"):
        factor = np.float32(np.float16(np.float32(1) / np.float32(layer.grid.scale)))
    if not (np.isfinite(factor) and factor > 0):
        raise ExportError(
            f"The step of its input, {layer.grid.scale:g}, has a reciprocal that float16 cannot hold.",
            layer=layer.layer.name,
            remedy='Skip the layer, or set "fakequant_precision_mode" to "DEFAULT".',
        )
    return factor


def _with_short_scale(layer: QuantizedLayer) -> QuantizedLayer:
    if layer.grid is None or layer.weight is None:
        return layer
    scale = to_19_bits(layer.bias_scale()) / np.float32(layer.grid.scale)
    # The levels of a codebook are in `weight` too.
    return replace(layer, scale_w=scale.astype(np.float32), codebook=None)
