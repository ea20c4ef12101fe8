"""What quantization did to each layer and to the whole: levels, bits, bytes, entropy, error; as data and as a table."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LayerSummary", "Summary", "summarise"]


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


@dataclass(frozen=True)
class Summary:
    """A whole quantization in figures.

    Attributes:
        target: Name of the target.
        layers: Every layer of the model that could be quantized, in graph order.
        files: Written file's kind -> its size in bytes, the float model's under "float_model".
    """

    target: str
    layers: tuple[LayerSummary, ...]
    files: Mapping[str, int]

    @property
    def totals(self) -> dict[str, float]:
        """Sums over the layers; those of bits are means over the quantized weights."""
        quantized = [layer for layer in self.layers if layer.entropy_bits is not None and layer.num_weights]
        count = sum(layer.num_weights for layer in quantized)
        mean_entropy = sum(layer.num_weights * (layer.entropy_bits or 0.0) for layer in quantized)
        mean_bits = sum(layer.num_weights * layer.bits_per_weight for layer in quantized)
        mean_int8_entropy = sum(layer.num_weights * (layer.int8_entropy_bits or 0.0) for layer in quantized)
        return {
            "num_weights": sum(layer.num_weights for layer in self.layers),
            "bytes_before": sum(layer.bytes_before for layer in self.layers),
            "bytes_after": sum(layer.bytes_after for layer in self.layers),
            "entropy_bytes": sum(layer.entropy_bytes for layer in self.layers),
            "entropy_bits": round(mean_entropy / count, 4) if count else 0.0,
            "bits_per_weight": round(mean_bits / count, 4) if count else 0.0,
            "int8_entropy_bits": round(mean_int8_entropy / count, 4) if count else 0.0,
        }

    @property
    def coded_bytes(self) -> dict[str, int | None]:
        """Sums over the quantized weights of what each lossless coder makes of them; None where none is installed."""
        quantized = [layer for layer in self.layers if layer.entropy_bits is not None and layer.num_weights]
        return {name: _known_sum([getattr(layer, name) for layer in quantized]) for name in _CODED_BYTES}

    def to_document(self) -> dict[str, Any]:
        """The summary as JSON; an infinite SQNR (nothing lost) is written as null."""
        layers = []
        for layer in self.layers:
            entry = asdict(layer)
            sqnr = layer.weight_sqnr_db
            entry["weight_sqnr_db"] = None if sqnr is None or math.isinf(sqnr) else round(sqnr, 3)
            for name in ("entropy_bits", "int8_entropy_bits"):
                entry[name] = None if entry[name] is None else round(entry[name], 4)
            entry["range_choice"] = None if layer.range_choice is None else layer.range_choice.to_document()
            layers.append(entry)
        return {
            "target": self.target,
            "totals": {**self.totals, **self.coded_bytes},
            "files": dict(self.files),
            "layers": layers,
        }

    def table(self) -> "Table":
        """The summary for a terminal."""
        from rich.table import Table

        table = Table(title=f"Quantized for {self.target}")
        table.add_column("layer", overflow="fold", min_width=12)
        table.add_column("type", overflow="fold")
        for heading in ("levels", "bits", "bytes float", "stored", "entropy bits", "SQNR dB", "input levels"):
            table.add_column(heading, justify="right")
        for layer in self.layers:
            table.add_row(layer.name, layer.type, *_cells(layer))
        totals = self.totals
        table.add_section()
        table.add_row(
            "total",
            "",
            "",
            f"{totals['bits_per_weight']:.2f}",
            f"{totals['bytes_before']:.0f}",
            f"{totals['bytes_after']:.0f}",
            f"{totals['entropy_bits']:.2f}",
            "",
            "",
        )
        return table

    def notes(self) -> list[str]:
        """Which layers stay float and why, and the sizes of the files, a line each."""
        lines = [f"{layer.name} stays float: {layer.reason}." for layer in self.layers if layer.reason is not None]
        coded = self.coded_bytes
        for coder in ("deflate", "zstd"):
            if coded[f"{coder}_bytes"]:
                after, uniform = coded[f"{coder}_bytes"], coded[f"int8_{coder}_bytes"]
                lines.append(f"int8 weights after {coder}: {after:,} bytes; as uniform int8: {uniform:,}")
        ways = Counter(layer.rounding for layer in self.layers if layer.rounding is not None)
        lines += [
            f"{count} weights rounded by {way}" for way, count in ways.items() if len(ways) > 1 or way != "nearest"
        ]
        before = self.files.get("float_model")
        lines += [
            f"{kind}: {size:,} bytes" + (f", {size / before:.1%} of the float model" if before else "")
            for kind, size in self.files.items()
            if kind != "float_model"
        ]
        return lines


def summarise(
    model: Model,
    plans: Sequence[LayerPlan],
    layers: Sequence[QuantizedLayer],
    target: str,
    files: Mapping[str, int],
    range_choices: Mapping[str, RangeChoice] | None = None,
    fitted: Collection[str] = (),
) -> Summary:
    """Put a quantization into figures.

    Args:
        model: The float model.
        plans: What was done to each layer.
        layers: The quantized layers.
        target: Name of the target.
        files: Written file's kind -> its size in bytes.
        range_choices: Layer name -> how "auto" chose the range of its input.
        fitted: Names of the layers whose weights were chosen on samples.
    """
    quantized = {layer.layer.name: layer for layer in layers}
    counted: set[str] = set()
    rows = []
    for plan in plans:
        first = plan.layer.weight is not None and plan.layer.weight not in counted
        counted.add(plan.layer.weight or "")
        row = _layer_summary(model, plan, quantized.get(plan.layer.name), own_weight=first)
        choice = (range_choices or {}).get(plan.layer.name)
        rows.append(replace(row, range_choice=choice, rounding=_rounding(plan, on_samples=plan.layer.name in fitted)))
    return Summary(target, tuple(rows), dict(files))


def _rounding(plan: LayerPlan, *, on_samples: bool) -> str | None:
    params = plan.weight_params
    if not isinstance(params, ArqParams):
        return None
    if params.rounding != "auto":
        return params.rounding
    return "gptq" if on_samples else "nearest"


def _layer_summary(
    model: Model, plan: LayerPlan, quantized: QuantizedLayer | None, *, own_weight: bool
) -> LayerSummary:
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
        **(_coded_bytes(quantized.weight, uniform) if own_weight else dict.fromkeys(_CODED_BYTES, 0)),
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
        bits_per_weight=codebook.code_bits / codebook.vector_size,
        bytes_before=4 * count,
        bytes_after=stored,
        entropy_bits=code_entropy / codebook.vector_size,
        entropy_bytes=stored - math.ceil(codes * codebook.code_bits / 8) + math.ceil(codes * code_entropy / 8),
        weight_sqnr_db=sqnr_db(model.weight(layer.weight), quantized.decode_weight()),
        activation_levels=activation_levels,
    )


_CODED_BYTES = ("deflate_bytes", "int8_deflate_bytes", "zstd_bytes", "int8_zstd_bytes")


def _coded_bytes(stored: npt.NDArray[np.int8], uniform: npt.NDArray[np.int8]) -> dict[str, int | None]:
    """What lossless coders make of a weight as stored, and as plain int8: under the names of _CODED_BYTES."""
    deflate, zstd = deflate_bytes(stored), zstd_bytes(stored)
    if uniform is stored:
        return dict(zip(_CODED_BYTES, (deflate, deflate, zstd, zstd), strict=True))
    return dict(zip(_CODED_BYTES, (deflate, deflate_bytes(uniform), zstd, zstd_bytes(uniform)), strict=True))


def _known_sum(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _cells(layer: LayerSummary) -> list[str]:
    if layer.form == "float":
        return ["float", "32", f"{layer.bytes_before}", f"{layer.bytes_after}", "", "", ""]
    sqnr = "" if layer.weight_sqnr_db is None else f"{layer.weight_sqnr_db:.1f}"
    return [
        "" if layer.levels is None else str(layer.levels),
        "" if layer.levels is None else f"{layer.bits_per_weight:g}",
        f"{layer.bytes_before}",
        f"{layer.bytes_after}",
        "" if layer.entropy_bits is None else f"{layer.entropy_bits:.2f}",
        sqnr,
        "float" if layer.activation_levels is None else str(layer.activation_levels),
    ]
