"""Write every form that was asked for, and the summary, under one prefix."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from amct_lite.errors import ParameterError
from amct_lite.export.ascend import ascend_model
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.export.fusion_info import fusion_info
from amct_lite.export.qdq import qdq_model
from amct_lite.export.summary import Summary, summarise
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.json_document import dump_json
from amct_lite.files.record import LayerRecord
from amct_lite.graph.saving import save_ir
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.quantized_layer import QuantizedLayer, quantized_layers

__all__ = ["SAVE_TYPES", "Saved", "save_fake_quant", "save_quantized"]

SAVE_TYPES = ("Fakequant", "Deploy", "Both")

_DEPLOY_FORMS = {"ascend": ascend_model, "qdq": qdq_model}


@dataclass(frozen=True)
class Saved:
    """What was written.

    Attributes:
        files: Kind ("fake_quant_model", "deploy_model", "quant_json", "summary") -> path.
        summary: The quantization in figures.
    """

    files: Mapping[str, Path]
    summary: Summary


def save_quantized(
    planned: PlannedGraph, records: Mapping[str, LayerRecord], save_type: str, folder: Path, prefix: str
) -> Saved:
    """Write the forms of one quantization.

    Args:
        planned: The model, its config and target.
        records: The factors of every quantized layer.
        save_type: "Fakequant", "Deploy" or "Both".
        folder: Where to write; made if missing.
        prefix: What the files' names start with; may be empty.

    Raises:
        ParameterError: save_type is none of the three.
        FileError: A file cannot be written.
    """
    if save_type not in SAVE_TYPES:
        raise ParameterError(
            f"The 'save_type' parameter of save_model must be one of {SAVE_TYPES}. Got {save_type!r} instead."
        )
    layers = quantized_layers(planned.model, records)
    files: dict[str, Path] = {}
    sizes = {"float_model": planned.model.size_bytes}
    start = f"{prefix}_" if prefix else ""
    if save_type in ("Fakequant", "Both"):
        files["fake_quant_model"] = folder / f"{start}fake_quant_model.onnx"
        sizes["fake_quant_model"] = save_fake_quant(planned, layers, files["fake_quant_model"])
    if save_type in ("Deploy", "Both"):
        files["deploy_model"] = folder / f"{start}deploy_model.onnx"
        sizes["deploy_model"] = save_ir(_deploy(planned, layers), files["deploy_model"])
        files["quant_json"] = folder / f"{start}quant.json"
        document = fusion_info(planned.model.ir.graph.name or "", layers)
        write_text_atomically(files["quant_json"], dump_json(document))
    summary = summarise(planned.model, planned.plans, layers, planned.target.name, sizes)
    files["summary"] = folder / f"{start}summary.json"
    write_text_atomically(files["summary"], dump_json(summary.to_document()))
    return Saved(files, summary)


def save_fake_quant(planned: PlannedGraph, layers: tuple[QuantizedLayer, ...], path: Path) -> int:
    """Write the fake-quant form alone; return its size in bytes."""
    return save_ir(fake_quant_model(planned.model, layers), path)


def _deploy(planned: PlannedGraph, layers: tuple[QuantizedLayer, ...]) -> ir.Model:
    return _DEPLOY_FORMS[planned.target.deploy_form](planned.model, layers)
