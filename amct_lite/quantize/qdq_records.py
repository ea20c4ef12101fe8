"""A QDQ model as what made it: the float network, and the factors of each of its layers as a record."""

import logging
from collections.abc import Collection
from pathlib import Path

from amct_lite.errors import ModelError
from amct_lite.files.record import LayerRecord
from amct_lite.files.target import Target
from amct_lite.graph.model import Model, load_model
from amct_lite.graph.passes.constant_folding import fold_constants
from amct_lite.graph.passes.pad_folding import fold_pads
from amct_lite.graph.passes.quantizer_removal import remove_quantizers
from amct_lite.graph.passes.shapes import infer_shapes
from amct_lite.graph.quantizers import Quantizer, quantizer_behind
from amct_lite.types import Layer, Technique

__all__ = ["open_qdq_model"]

_logger = logging.getLogger(__name__)

LayerQuantizers = tuple[Quantizer, Quantizer]
"""The grids of a layer's input and of its weight."""


def open_qdq_model(path: Path, target: Target) -> tuple[Model, dict[str, LayerRecord]]:
    """Load a QDQ model and take the quantization apart from the network.

    Layers with a grid on one operand only, or that the target cannot quantize, stay float; a warning says so.

    Args:
        path: An ONNX file with QuantizeLinear and DequantizeLinear in front of Conv, ConvTranspose, Gemm and MatMul.
        target: The device.

    Returns:
        The float model, and layer name -> factors.

    Raises:
        FileError: The file cannot be read.
        ModelError: It is no such model, or a grid cannot be expressed in a record.
    """
    quantized = load_model(path, fold_batch_norm=False)
    quantizers = _layer_quantizers(quantized)
    while quantizers:
        model = _float_model(quantized, quantizers)
        refused = {
            layer.name: reason
            for layer in model.layers
            if layer.name in quantizers and (reason := target.refusal(layer, Technique.UNIFORM)) is not None
        }
        if not refused:
            return model, {
                layer.name: _record(layer, *quantizers[layer.name])
                for layer in model.layers
                if layer.name in quantizers
            }
        for name, reason in refused.items():
            _logger.warning("Layer %r stays float under the target %r: %s", name, target.name, reason)
            del quantizers[name]
    raise ModelError(
        f"The model {path} has no layer with QuantizeLinear and DequantizeLinear in front of input and weight that the"
        f" target {target.name!r} can quantize.",
        remedy="Give a QDQ model; for a float model and a record use convert_model.",
    )


def _layer_quantizers(model: Model) -> dict[str, LayerQuantizers]:
    nodes = {node.name: node for node in model.ir.graph}
    found = {}
    for layer in model.layers:
        if layer.weight_index is None:
            continue
        node = nodes[layer.name]
        activation = quantizer_behind(node.inputs[layer.activation_index])
        weight = quantizer_behind(node.inputs[layer.weight_index])
        if activation is not None and weight is not None:
            found[layer.name] = activation, weight
        elif activation is not None or weight is not None:
            what = "weight" if weight is None else "input"
            _logger.warning("Layer %r stays float: its %s does not come from DequantizeLinear.", layer.name, what)
    return found


def _float_model(quantized: Model, layers: Collection[str]) -> Model:
    """The model without quantizers; the inputs of these layers will be quantized again."""
    clone = quantized.clone()
    nodes = {node.name: node for node in clone.graph}
    remove_quantizers(clone, {(nodes[name], quantized.layer(name).activation_index) for name in layers})
    # What stood on integers is constant now: a weight that was transposed, the bounds of a Pad.
    infer_shapes(clone)
    fold_constants(clone)
    fold_pads(clone)
    return Model(clone, quantized.path, quantized.digest, quantized.size_bytes)


def _record(layer: Layer, activation: Quantizer, weight: Quantizer) -> LayerRecord:
    if activation.scales.size > 1:
        raise ModelError(
            f"Its input has {activation.scales.size} scales, one for each channel: only weights can have them.",
            layer=layer.name,
            remedy="Quantize activations per tensor.",
        )
    if weight.offsets.any():
        raise ModelError(
            "Its weight is quantized with a zero point other than 0 (128 in uint8): weights must be symmetric.",
            layer=layer.name,
            remedy="Quantize weights symmetrically, with int8.",
        )
    if weight.axis not in (None, layer.output_channel_axis):
        raise ModelError(
            f"Its weight has a scale for each channel of axis {weight.axis}; the output channels are axis"
            f" {layer.output_channel_axis}.",
            layer=layer.name,
            remedy="Quantize weights along their output channels, or per tensor.",
        )
    return LayerRecord(
        scale_d=float(activation.scales[0]),
        offset_d=int(activation.offsets[0]),
        scale_w=tuple(map(float, weight.scales)),
        offset_w=(0,) * weight.scales.size,
    )
