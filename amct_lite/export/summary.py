"""What quantization did to the whole: every layer's figures, totals, sizes of files; as data and as a table."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from amct_lite.export.layer_summary import CODED_BYTES, LayerSummary, rounding_of, summarise_layer
from amct_lite.files.range_file import RangeChoice
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.quantized_layer import QuantizedLayer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Summary", "summarise"]


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
        return {name: _known_sum([getattr(layer, name) for layer in quantized]) for name in CODED_BYTES}

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
        row = summarise_layer(model, plan, quantized.get(plan.layer.name), own_weight=first)
        choice = (range_choices or {}).get(plan.layer.name)
        rows.append(replace(row, range_choice=choice, rounding=rounding_of(plan, on_samples=plan.layer.name in fitted)))
    return Summary(target, tuple(rows), dict(files))


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
