"""Write every form that was asked for, and the summary, under one prefix."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from amct_lite.caffe.model import CaffeModel
from amct_lite.errors import ParameterError
from amct_lite.export.ascend import ascend_model
from amct_lite.export.caffe_pair import deploy_pair, fake_quant_pair, write_pair
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.export.fusion_info import DeployOperator, caffe_operators, fusion_info, onnx_operators
from amct_lite.export.qdq import qdq_model
from amct_lite.export.storage import Storage
from amct_lite.export.summary import Summary, summarise
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.json_document import dump_json
from amct_lite.files.record import LayerRecord, range_choices
from amct_lite.graph.saving import save_ir
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.balancing import balanced_graph
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = [
    "SAVE_TYPES",
    "Form",
    "ModelFiles",
    "Saved",
    "fake_quant_form",
    "fullest_save_type",
    "possible_files",
    "save_quantized",
]

_logger = logging.getLogger(__name__)

SAVE_TYPES = ("Fakequant", "Deploy", "Both")

_MODEL_ENDINGS = ("model.onnx", "model.data", "model.prototxt", "weights.caffemodel")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model: an ONNX file, or a Caffe pair.

    Attributes:
        model: The ONNX file, or the prototxt.
        weights: The caffemodel.
        external: The files with an ONNX file's external data.
    """

    model: Path
    weights: Path | None = None
    external: tuple[Path, ...] = ()

    @property
    def all_files(self) -> tuple[Path, ...]:
        """What has to be there for the model to load."""
        return (self.model, *(() if self.weights is None else (self.weights,)), *self.external)

    def by_kind(self, form: str) -> dict[str, Path]:
        """The files under their kinds, "{form}_model" and "{form}_weights"."""
        found = {f"{form}_model": self.model}
        return found if self.weights is None else {**found, f"{form}_weights": self.weights}


@dataclass(frozen=True)
class Form:
    """A form in memory.

    Attributes:
        files: Where it goes.
        write: Writes it there and returns its size in bytes.
        operators: What a deploy form's operators stand for; () for other forms.
    """

    files: ModelFiles
    write: Callable[[], int]
    operators: tuple[DeployOperator, ...] = ()


@dataclass(frozen=True)
class Saved:
    """What was written.

    Attributes:
        files: Kind ("fake_quant_model", "deploy_model", "quant_json", "summary"; for Caffe pairs also
            "fake_quant_weights" and "deploy_weights") -> path.
        summary: The quantization in figures.
    """

    files: Mapping[str, Path]
    summary: Summary


def save_quantized(
    planned: PlannedGraph,
    records: Mapping[str, LayerRecord],
    save_type: str,
    folder: Path,
    prefix: str,
    *,
    storage: str | None = None,
) -> Saved:
    """Write the forms of one quantization.

    Args:
        planned: The model, its config and target.
        records: The factors of every quantized layer.
        save_type: "Fakequant", "Deploy" or "Both".
        folder: Where to write; made if missing.
        prefix: What the files' names start with; may be empty.
        storage: How the deploy model stores weights: "packed", "int8" or "dense"; None for codebooks packed and
            everything else as int8.

    Raises:
        ParameterError: save_type is none of the three, or storage is not for this target.
        ExportError: A form cannot express a layer; nothing is written then.
        FileError: A file cannot be written.
    """
    if save_type not in SAVE_TYPES:
        raise ParameterError(
            f"The 'save_type' parameter of save_model must be one of {SAVE_TYPES}. Got {save_type!r} instead."
        )
    stored = _check_storage(storage, planned, save_type)
    planned = balanced_graph(planned, {name: record.tensor_balance_factor for name, record in records.items()})
    layers = quantized_layers(planned.model, records)
    start = f"{prefix}_" if prefix else ""
    # Every form is made before the first is written: a layer that one of them cannot express leaves nothing behind.
    forms = {}
    if save_type in ("Fakequant", "Both"):
        forms["fake_quant"] = fake_quant_form(planned, layers, folder, start)
    if save_type in ("Deploy", "Both"):
        forms["deploy"] = _deploy_form(planned, layers, folder, start, stored)
    written: dict[str, Path] = {}
    sizes = {"float_model": planned.model.size_bytes}
    for name, form in forms.items():
        for path in filter(Path.exists, form.files.all_files):
            _logger.info("The file already exists at %s, and it will be overwritten by AMCT.", path)
        sizes[f"{name}_model"] = form.write()
        _logger.info("[save_model]: The model is saved in %s", form.files.model)
        if form.files.weights is not None:
            _logger.info("The weights_file is saved in %s", form.files.weights)
        written.update(form.files.by_kind(name))
    if "deploy" in forms:
        written["quant_json"] = folder / f"{start}quant.json"
        document = fusion_info(planned.model.ir.graph.name or "", forms["deploy"].operators)
        write_text_atomically(written["quant_json"], dump_json(document))
    fitted = [name for name, record in records.items() if record.weight is not None]
    summary = summarise(
        planned.model, planned.plans, layers, planned.target.name, sizes, range_choices(records), fitted
    )
    written["summary"] = folder / f"{start}summary.json"
    write_text_atomically(written["summary"], dump_json(summary.to_document()))
    return Saved(written, summary)


def fullest_save_type(planned: PlannedGraph, records: Mapping[str, LayerRecord]) -> str:
    """The fullest save_type that works: "Fakequant" where a Caffe deploy pair would need a NUQ table, else "Both"."""
    clustered = any(record.activation_cluster for record in records.values())
    caffe_deploy = isinstance(planned.model, CaffeModel) and planned.target.deploy_form == "ascend"
    return "Fakequant" if clustered and caffe_deploy else "Both"


def possible_files(folder: Path, prefix: str) -> tuple[Path, ...]:
    """Every file that `save_quantized` may write under a prefix, whatever the network's format."""
    start = f"{prefix}_" if prefix else ""
    endings = [f"{form}_{name}" for form in ("fake_quant", "deploy") for name in _MODEL_ENDINGS]
    return tuple(folder / f"{start}{ending}" for ending in (*endings, "quant.json", "summary.json"))


def fake_quant_form(planned: PlannedGraph, layers: Sequence[QuantizedLayer], folder: Path, start: str) -> Form:
    """Make the fake-quant form, in the format that the float network came in.

    Args:
        planned: The model, its config and target.
        layers: Its quantized layers.
        folder: Where it will be written.
        start: What the files' names start with.
    """
    model = planned.model
    if isinstance(model, CaffeModel):
        pair = fake_quant_pair(model.network, layers, model.folded)
        return _caffe_form(pair, folder / f"{start}fake_quant_model", folder / f"{start}fake_quant_weights")
    return _onnx_form(fake_quant_model(model, layers), folder / f"{start}fake_quant_model.onnx")


def _check_storage(storage: str | None, planned: PlannedGraph, save_type: str) -> Storage | None:
    if storage is None:
        return None
    if storage not in list(Storage):
        raise ParameterError(
            f"The 'storage' parameter of save_model must be one of {tuple(map(str, Storage))}. Got {storage!r} instead."
        )
    if planned.target.deploy_form == "ascend" or save_type == "Fakequant":
        raise ParameterError(
            f"The 'storage' parameter of save_model is for deploy models of ONNX Runtime; this is {save_type!r} for"
            f" the target {planned.target.name!r}.",
            remedy='Leave it out, or set "target" to "onnxruntime" and save_type to "Deploy" or "Both".',
        )
    return Storage(storage)


def _deploy_form(
    planned: PlannedGraph, layers: Sequence[QuantizedLayer], folder: Path, start: str, storage: Storage | None
) -> Form:
    model, form = planned.model, planned.target.deploy_form
    if isinstance(model, CaffeModel) and form == "ascend":
        pair = deploy_pair(model.network, layers, model.folded)
        saved = _caffe_form(pair, folder / f"{start}deploy_model", folder / f"{start}deploy_weights")
        return replace(saved, operators=caffe_operators(pair[0].layer, model))
    deploy = ascend_model(model, layers) if form == "ascend" else qdq_model(model, layers, storage)
    saved = _onnx_form(deploy, folder / f"{start}deploy_model.onnx")
    return replace(saved, operators=onnx_operators(deploy.graph, model.ir.graph))


def _onnx_form(model: ir.Model, path: Path) -> Form:
    return Form(ModelFiles(path), lambda: save_ir(model, path))


def _caffe_form(pair: tuple[Any, Any], model: Path, weights: Path) -> Form:
    prototxt, caffemodel = model.with_name(f"{model.name}.prototxt"), weights.with_name(f"{weights.name}.caffemodel")

    def write() -> int:
        write_pair(*pair, prototxt, caffemodel)
        return prototxt.stat().st_size + caffemodel.stat().st_size

    return Form(ModelFiles(prototxt, caffemodel), write)
