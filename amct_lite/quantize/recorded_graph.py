"""A planned graph made of a record without a config: the record decides what is quantized and what was folded."""

from collections.abc import Mapping
from pathlib import Path

from amct_lite.caffe.float_check import refuse_quantized_layers, refuse_quantized_network
from amct_lite.caffe.model import CaffeModel
from amct_lite.errors import ParameterError, RecordError
from amct_lite.files.config import FORCE_FP16_QUANT, LayerConfig, QuantConfig
from amct_lite.files.record import LayerRecord
from amct_lite.files.target import Target
from amct_lite.graph.float_check import refuse_quantized
from amct_lite.graph.model import Model
from amct_lite.graph.opening import is_caffe, open_model
from amct_lite.quantize.equalization import equalized_model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.types import Layer, Technique

__all__ = ["open_recorded_model", "recorded_graph"]


def open_recorded_model(model_file: Path, weights_file: Path | None, records: Mapping[str, LayerRecord]) -> Model:
    """Load the float network of a record, folded and equalized as the record says.

    Args:
        model_file: An ONNX file, or a prototxt.
        weights_file: The caffemodel of a prototxt.
        records: Layer name -> factors, and entries that only say skip_fusion.

    Raises:
        AmctError: It cannot be loaded, is quantized already, or lacks a layer of the record.
    """
    caffe = is_caffe(model_file, weights_file)
    if caffe:
        refuse_quantized_layers(model_file)
    unfused = [name for name, record in records.items() if record.skip_fusion]
    weighted = [record for record in records.values() if record.scale_w or record.codebook or record.float_weights]
    # Where do_fusion was off every layer with weights says so, those that stay float have no entry.
    fold = not weighted or not all(record.skip_fusion for record in weighted)
    try:
        model = open_model(model_file, weights_file, fold_batch_norm=fold, skip_fusion_layers=unfused if fold else ())
    except ParameterError as error:
        missing = next((name for name in unfused if repr(name) in error.cause), "a layer")
        raise RecordError(
            f"find {missing} failure in model {model_file}: the record has skip_fusion for it.",
            remedy="Use the model that the record was made for, or delete the entry.",
        ) from error
    if isinstance(model, CaffeModel):
        refuse_quantized_network(model.network)
    else:
        refuse_quantized(model)
    if not any(record.equalized for record in records.values()):
        return model
    if caffe:
        raise RecordError(
            "The record is for equalized weights, and the weights of a Caffe network are not equalized.",
            layer=next(name for name, record in records.items() if record.equalized),
            remedy="Use the ONNX model that the record was made for, or calibrate again.",
        )
    return equalized_model(model)


def recorded_graph(
    model: Model, records: Mapping[str, LayerRecord], target: Target
) -> tuple[PlannedGraph, dict[str, LayerRecord]]:
    """Plan what a record says.

    Args:
        model: The float model.
        records: Layer name -> factors; entries without factors quantize nothing.
        target: The device.

    Returns:
        The planned graph, and the records of what is quantized.

    Raises:
        RecordError: The record has no factors, or some of a layer that the target cannot quantize.
    """
    quantized = {name: record for name, record in records.items() if record.has_factors}
    if not quantized:
        raise RecordError(
            "record_file is empty, no layers to be quantized: no entry has factors.",
            remedy="Use a record that calibration has written to its end.",
        )
    plans = tuple(_plan(layer, quantized.get(layer.name), target) for layer in model.layers)
    return PlannedGraph(model, QuantConfig(target=target.name), target, plans, config_file=None), quantized


def _plan(layer: Layer, record: LayerRecord | None, target: Target) -> LayerPlan:
    if record is None:
        return LayerPlan(layer, reason=layer.blocked or "it is not in the record")
    technique = Technique.UNIFORM if record.codebook is None else Technique.CODEBOOK
    refusal = target.refusal(layer, technique)
    if refusal is not None:
        raise RecordError(
            f"layer {layer.name} cannot be quantized under the target {target.name!r}: {refusal.removesuffix('.')}.",
            layer=layer.name,
            remedy="Delete its entry from the record, or give another target.",
        )
    if record.scale_d is None and target.deploy_form == "ascend":
        raise RecordError(
            f"cannot find scale_d of layer {layer.name} in record_file, please check data calibration process: under"
            f" the target {target.name!r} layers run on integers.",
            layer=layer.name,
            remedy='Calibrate again, or give target="onnxruntime", where inputs may stay float.',
        )
    if record.fakequant_precision_mode == FORCE_FP16_QUANT and target.deploy_form != "ascend":
        raise RecordError(
            f"fakequant_precision_mode {FORCE_FP16_QUANT} simulates Ascend devices, and the target {target.name!r} is"
            " none.",
            layer=layer.name,
            remedy='Delete it from the record, or give target="ascend".',
        )
    # How its factors were found is not known any more: an empty config.
    return LayerPlan(layer, LayerConfig(), with_offset=record.offset_d != 0)
