"""The layers that quantized Caffe pairs have beside the network's own: AMCT's, and Python layers for stock Caffe."""

import json
from typing import Any

import numpy as np

from amct_lite.errors import ExportError
from amct_lite.export.caffe_blobs import float_blob
from amct_lite.export.float16 import decode_scale, float16_factor
from amct_lite.export.operands import refuse_offset
from amct_lite.export.shift import shift_factors
from amct_lite.files.protos import message_class
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import LayerKind

__all__ = [
    "PYTHON_MODULE",
    "anti_quant_layer",
    "dequant_layer",
    "new_layer",
    "python_quant_layer",
    "python_shift_layer",
    "quant_layer",
]

PYTHON_MODULE = "amct_lite.caffe_layers"
"""Where Caffe finds the fake-quant layers; see `amct_lite.caffe_layers.write_caffe_layers`."""


def new_layer(name: str, layer_type: str, bottom: str, top: str) -> Any:
    """A LayerParameter with one bottom and one top."""
    return message_class("caffe", "caffe.LayerParameter")(name=name, type=layer_type, bottom=[bottom], top=[top])


def quant_layer(layer: QuantizedLayer, bottom: str, top: str) -> Any:
    """AMCT's Quant: float blob -> int8 blob.

    Raises:
        ExportError: The activation is clustered, which AMCT has no layer for.
    """
    name, index = layer.layer.node_name, layer.layer.activation_index
    if layer.activation_levels is not None:
        raise ExportError(
            "AMCT's deploy pair has no layer that clusters an activation.",
            layer=name,
            remedy="Leave activation NUQ out of its config, or save the fake-quant pair alone: save_type 'Fakequant'.",
        )
    assert layer.grid is not None
    message = new_layer(f"{name}_{index}_quant_layer", "Quant", bottom, top)
    message.quant_param.with_offset = layer.grid.offset != 0
    message.quant_param.scale = float(np.float32(1) / np.float32(layer.grid.scale))
    message.quant_param.offset = np.int8(layer.grid.offset).tobytes()
    message.quant_param.object_layer = name
    return message


def dequant_layer(message: Any, layer: QuantizedLayer) -> Any:
    """AMCT's DeQuant behind a layer: int32 -> float, in place on the layer's top, so that every name stays."""
    top = message.top[0]
    dequant = new_layer(f"{message.name}_dequant_layer", "DeQuant", top, top)
    assert layer.grid is not None
    scale = layer.accumulator_scale()
    dequant.dequant_param.channel_wise = scale.size > 1
    dequant.dequant_param.object_layer = message.name
    dequant.dequant_param.layer_type = message.type
    zeros = np.zeros_like(scale)
    shifts = np.array(layer.shift_bit, np.float32) if layer.shift_bit else zeros
    # deqscale, shift_bit, offset_w: a weight's offset is always 0.
    dequant.blobs.extend([float_blob(scale), float_blob(shifts), float_blob(zeros)])
    return dequant


def anti_quant_layer(layer: QuantizedLayer, name: str, bottom: str, top: str) -> Any:
    """AMCT's AntiQuant: int8 -> float by the step in quant_param.scale.

    Raises:
        ExportError: The grid has an offset, which AntiQuant does not take back.
    """
    assert layer.grid is not None
    refuse_offset(layer, "AntiQuant")
    message = new_layer(name, "AntiQuant", bottom, top)
    message.quant_param.scale = float(np.float32(layer.grid.scale))
    message.quant_param.object_layer = layer.layer.node_name
    return message


def python_quant_layer(layer: QuantizedLayer, bottom: str, top: str) -> Any:
    """Our own Python layer that quantizes and decodes, for stock Caffe."""
    grid = layer.grid
    assert grid is not None
    levels = None if layer.activation_levels is None else list(layer.activation_levels)
    parameters: dict[str, Any] = {
        "scale": grid.scale,
        "offset": grid.offset,
        "num_bits": grid.num_bits,
        "levels": levels,
    }
    if layer.activation_costs:
        parameters["costs"] = list(layer.activation_costs)
    if layer.float16:
        float16_factor(layer)  # or an error
        parameters |= {"float16": True, "decode_scale": decode_scale(layer)}
    name = f"{layer.layer.node_name}_{layer.layer.activation_index}_quant_layer"
    return _python_layer(new_layer(name, "Python", bottom, top), "FakeQuantLayer", parameters)


def python_shift_layer(message: Any, layer: QuantizedLayer) -> Any:
    """Our own Python layer that loses what the int16 stage of older devices loses, in place on a layer's top."""
    top = message.top[0]
    scale, steps = shift_factors(layer)
    axis = -1 if layer.layer.kind is LayerKind.INNER_PRODUCT else 1
    parameters = {"deq_scale": scale.tolist(), "steps": steps.tolist(), "axis": axis}
    return _python_layer(new_layer(f"{message.name}_shift_layer", "Python", top, top), "ShiftLayer", parameters)


def _python_layer(message: Any, layer: str, parameters: dict[str, Any]) -> Any:
    message.python_param.module = PYTHON_MODULE
    message.python_param.layer = layer
    message.python_param.param_str = json.dumps(parameters)
    return message
