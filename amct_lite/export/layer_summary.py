"""What quantization did to one layer: levels, bits, bytes, entropy, error."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.compression import deflate_bytes, zstd_bytes
from amct_lite.codebook.entropy import entropy_bits
from amct_lite.files.config import ArqParams
from amct_lite.files.range_file import RangeChoice
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.uniform.arq import quantize_weight, weight_scales
from amct_lite.uniform.error import sqnr_db

__all__ = ["CODED_BYTES", "LayerSummary", "rounding_of", "summarise_layer"]

CODED_BYTES = ("deflate_bytes", "int8_deflate_bytes", "zstd_bytes", "int8_zstd_bytes")
"""The sizes after lossless coders among a layer's figures."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer in figures.

    Attributes:
        name: The layer.
        type: Its operator.
        form: "float", "int8", "nuq" or "codebook" (of weights); "int8" for a quantized layer without weights.
        reason: Why it stays float; None for a quantized layer.
        num_weights: Number of weights; 0 for a layer without, and for one whose tied twin above has them.
        levels: Distinct values among the stored int8 weights; None for a float layer or one without weights.
        bits_per_weight: Width of an index into those levels, shared by the weights of a vector; 32 for a float layer.
        bytes_before: Weight as float32.
        bytes_after: Weight as stored in the deploy model, scales included.
        entropy_bits: Shannon entropy of the stored weights, bits per weight: what a device's lossless weight
            compressor can reach; None for a float layer.
        entropy_bytes: The same in bytes for the whole weight; bytes_after for a float layer.
        weight_sqnr_db: Signal to quantization noise of the weight; None where it is not quantized.
        activation_levels: Levels of the quantized input; None where it stays float.
        int8_entropy_bits: entropy_bits of the same weight as plain uniform int8 (ARQ), for comparison.
        deflate_bytes: The stored weight, without scales, after zlib at level 9; None for a float layer.
        int8_deflate_bytes: The same of plain uniform int8.
        zstd_bytes: After zstd at level 1; None for a float layer, or where no zstd is installed.
        int8_zstd_bytes: The same of plain uniform int8.
        range_choice: How "auto" chose the range of its input; None with other algorithms.
        rounding: How its uniform weight was rounded: "nearest" is each by itself; None for other layers.
    """

    name: str
    type: str
    form: str
    reason: str | None
    num_weights: int
    levels: int | None
    bits_per_weight: float
    bytes_before: int
    bytes_after: int
    entropy_bits: float | None
    entropy_bytes: int
    weight_sqnr_db: float | None
    activation_levels: int | None
    int8_entropy_bits: float | None = None
    deflate_bytes: int | None = None
    int8_deflate_bytes: int | None = None
    zstd_bytes: int | None = None
    int8_zstd_bytes: int | None = None
    range_choice: RangeChoice | None = None
    rounding: str | None = None


def summarise_layer(
    model: Model, plan: LayerPlan, quantized: QuantizedLayer | None, *, own_weight: bool
) -> LayerSummary:
    """Put one layer into figures.

    Args:
        model: The float model.
        plan: What was done to the layer.
        quantized: The result; None where it stays float.
        own_weight: Whether its weight counts here, and not with a layer above that shares it.
    """
    layer = plan.layer
    count = layer.num_weights if own_weight else 0
    activation_levels = None
    if quantized is not None and quantized.grid is not None:
        activation_levels = len(quantized.activation_levels or range(2**quantized.grid.num_bits))
    if quantized is not None and quantized.codebook is not None:
        return _codebook_summary(model, quantized, count, activation_levels)
    if quantized is None or quantized.weight is None or layer.weight is None:
        return LayerSummary(
            name=layer.name,
            type=layer.op_type,
            form="float" if quantized is None or quantized.has_float_weights else "int8",
            reason=plan.reason if quantized is None else None,
            num_weights=count,
            levels=None,
            bits_per_weight=32,
            bytes_before=4 * count,
            bytes_after=4 * count,
            entropy_bits=None,
            entropy_bytes=4 * count,
            weight_sqnr_db=None,
            activation_levels=activation_levels,
        )
    levels = int(np.unique(quantized.weight).size)
    values = model.weight(layer.weight)
    entropy = entropy_bits(quantized.weight)
    uniform = quantized.weight
    if quantized.weight_levels is not None:
        axis = quantized.scale_axis
        uniform = quantize_weight(values, weight_scales(values, axis=axis), axis=axis)
    scale_bytes = 4 * quantized.scale_w.size if own_weight else 0
    return LayerSummary(
        name=layer.name,
        type=layer.op_type,
        form="int8" if quantized.weight_levels is None else "nuq",
        reason=None,
        num_weights=count,
        levels=levels,
        bits_per_weight=max(1, math.ceil(math.log2(levels))),
        bytes_before=4 * count,
        bytes_after=count + scale_bytes,
        entropy_bits=entropy,
        entropy_bytes=math.ceil(count * entropy / 8) + scale_bytes,
        weight_sqnr_db=sqnr_db(values, quantized.decode_weight()),
        activation_levels=activation_levels,
        int8_entropy_bits=entropy_bits(uniform),
        **(_coded_bytes(quantized.weight, uniform) if own_weight else dict.fromkeys(CODED_BYTES, 0)),
    )


def _codebook_summary(
    model: Model, quantized: QuantizedLayer, count: int, activation_levels: int | None
) -> LayerSummary:
    layer, codebook = quantized.layer, quantized.codebook
    assert codebook is not None and layer.weight is not None
    stored = codebook.stored_bytes if count else 0
    code_entropy, codes = entropy_bits(codebook.codes), codebook.codes.size if count else 0
    return LayerSummary(
        name=layer.name,
        type=layer.op_type,
        form="codebook",
        reason=None,
        num_weights=count,
        levels=codebook.num_levels,
        bits_per_weight=codebook.bits_per_weight,
        bytes_before=4 * count,
        bytes_after=stored,
        entropy_bits=code_entropy / codebook.vector_size,
        entropy_bytes=stored - math.ceil(codes * codebook.code_bits / 8) + math.ceil(codes * code_entropy / 8),
        weight_sqnr_db=sqnr_db(model.weight(layer.weight), quantized.decode_weight()),
        activation_levels=activation_levels,
    )


def _coded_bytes(stored: npt.NDArray[np.int8], uniform: npt.NDArray[np.int8]) -> dict[str, int | None]:
    """What lossless coders make of a weight as stored, and as plain int8: under the names of CODED_BYTES."""
    deflate, zstd = deflate_bytes(stored), zstd_bytes(stored)
    if uniform is stored:
        return dict(zip(CODED_BYTES, (deflate, deflate, zstd, zstd), strict=True))
    return dict(zip(CODED_BYTES, (deflate, deflate_bytes(uniform), zstd, zstd_bytes(uniform)), strict=True))


def rounding_of(plan: LayerPlan, *, on_samples: bool) -> str | None:
    """How a uniform weight was rounded; None for other layers."""
    params = plan.weight_params
    if not isinstance(params, ArqParams):
        return None
    if params.rounding != "auto":
        return params.rounding
    return "gptq" if on_samples else "nearest"
