"""The forms of a Caffe source: a fake-quant pair for stock Caffe, and AMCT's deploy pair.

Names, order and unquantized parameters of the network survive; layers that only training uses are left out. Where
BatchNorm and Scale layers were folded into a quantized layer they disappear; at a layer that stays float they stay too.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.errors import ExportError
from amct_lite.export.caffe_blobs import float_blob, int8_blob, int32_blob
from amct_lite.export.caffe_editor import CaffeEditor
from amct_lite.export.operands import refuse_float_weights, refuse_wide_activations
from amct_lite.files.atomic import write_bytes_atomically, write_text_atomically
from amct_lite.files.protos import message_class
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import LayerKind

__all__ = ["PYTHON_MODULE", "deploy_pair", "fake_quant_pair", "float_pair", "write_pair"]

PYTHON_MODULE = "amct_lite.caffe_layers"
"""Where Caffe finds the fake-quant layers; see `amct_lite.caffe_layers.write_caffe_layers`."""

Pair = tuple[Any, Any]
"""(prototxt, caffemodel), two NetParameter messages."""


def float_pair(network: CaffeNetwork) -> Pair:
    """Build the pair of a network in which nothing is quantized.

    Args:
        network: The network with its weights.
    """
    return CaffeEditor(network).pair()


def fake_quant_pair(network: CaffeNetwork, layers: Sequence[QuantizedLayer], folded: Mapping[str, str]) -> Pair:
    """Build the fake-quant pair: floats on the quantized values' grid, activations through Python layers.

    Args:
        network: The network with its weights; it is not changed.
        layers: Its quantized layers, in graph order, by their Caffe names.
        folded: BatchNorm or Scale layer -> the layer that took it in.

    Returns:
        (prototxt, caffemodel).

    Raises:
        ExportError: A layer is none of the network's, or its weights stay float.
    """
    # What folding made of float weights is in the graph, not in the pair's blobs.
    refuse_float_weights(layers)
    refuse_wide_activations(layers)
    editor = CaffeEditor(network)
    _take_out_folded(editor, layers, folded)
    _insert_quantizers(editor, layers, _python_layer)
    for layer in layers:
        bias = layer.decode_bias() if layer.has_bias else None
        if layer.has_weight:
            weight = _in_caffe_order(editor.layer(layer.layer.name), layer, layer.decode_weight())
            _set_blobs(editor.layer(layer.layer.name), weight, bias, float_blob, float_blob)
    return editor.pair()


def deploy_pair(network: CaffeNetwork, layers: Sequence[QuantizedLayer], folded: Mapping[str, str]) -> Pair:
    """Build AMCT's deploy pair: Quant, a layer on int8 weights and int32 bias, DeQuant. No Caffe runs it.

    Args:
        network: The network with its weights; it is not changed.
        layers: Its quantized layers, in graph order, by their Caffe names.
        folded: BatchNorm or Scale layer -> the layer that took it in.

    Returns:
        (prototxt, caffemodel).

    Raises:
        ExportError: A layer is none of the network's, its activation is clustered, or its weights stay float.
    """
    refuse_float_weights(layers)
    refuse_wide_activations(layers)
    editor = CaffeEditor(network)
    _take_out_folded(editor, layers, folded)
    _insert_quantizers(editor, layers, _quant_layer)
    for layer in layers:
        message = editor.layer(layer.layer.name)
        if layer.weight is not None:
            if layer.bias is None:
                _move_bias_out(editor, message, layer)
            weight = _in_caffe_order(message, layer, layer.weight)
            _set_blobs(message, weight, layer.bias, int8_blob, int32_blob)
        editor.insert_after(layer.layer.name, _dequant_layer(message, layer))
    return editor.pair()


def write_pair(
    prototxt: Any, caffemodel: Any, prototxt_path: str | os.PathLike[str], caffemodel_path: str | os.PathLike[str]
) -> int:
    """Write a pair; the same messages give the same bytes, and each file appears whole or not at all.

    Args:
        prototxt: NetParameter without weights.
        caffemodel: NetParameter with weights.
        prototxt_path: Where the prototxt shall be.
        caffemodel_path: Where the caffemodel shall be.

    Returns:
        How many bytes were written.

    Raises:
        FileError: A file cannot be written.
    """
    text = text_format.MessageToString(prototxt, as_utf8=True)
    data = caffemodel.SerializeToString(deterministic=True)
    write_bytes_atomically(caffemodel_path, data)
    write_text_atomically(prototxt_path, text)
    return len(text.encode()) + len(data)


def _take_out_folded(editor: CaffeEditor, layers: Sequence[QuantizedLayer], folded: Mapping[str, str]) -> None:
    quantized = {layer.layer.name for layer in layers}
    position = {message.name: index for index, message in enumerate(editor.layers)}
    gone = [name for name in position if folded.get(name) in quantized]
    # Each in the order in which its neighbour already is the layer that took it in.
    for name in (name for name in gone if position[name] > position[folded[name]]):
        editor.take_out(name)
    for name in (name for name in reversed(gone) if position[name] < position[folded[name]]):
        editor.take_out_before(name, folded[name])


def _insert_quantizers(
    editor: CaffeEditor, layers: Sequence[QuantizedLayer], make: Callable[[QuantizedLayer, str, str], Any]
) -> None:
    """Put a quantizer in front of each layer; layers that quantize the same blob alike share one."""
    tops: dict[Any, str] = {}
    for layer in layers:
        if layer.grid is None:
            continue
        name = layer.layer.name
        message = editor.layer(name)
        key = (editor.bottom_value(name), layer.grid, layer.activation_levels, layer.activation_costs)
        if key not in tops:
            tops[key] = editor.new_blob(f"{name}_0_quant")
            quantizer = make(layer, message.bottom[0], tops[key])
            quantizer.name = editor.new_layer_name(quantizer.name)
            editor.insert_before(name, quantizer)
        message.bottom[0] = tops[key]


def _python_layer(layer: QuantizedLayer, bottom: str, top: str) -> Any:
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
    message = _new_layer(f"{layer.layer.name}_0_quant_layer", "Python", bottom, top)
    message.python_param.module = PYTHON_MODULE
    message.python_param.layer = "FakeQuantLayer"
    message.python_param.param_str = json.dumps(parameters)
    return message


def _quant_layer(layer: QuantizedLayer, bottom: str, top: str) -> Any:
    name = layer.layer.name
    if layer.activation_levels is not None:
        raise ExportError(
            "AMCT's deploy pair has no layer that clusters an activation.",
            layer=name,
            remedy="Leave activation NUQ out of its config, or save the fake-quant pair alone: save_type 'Fakequant'.",
        )
    assert layer.grid is not None
    message = _new_layer(f"{name}_0_quant_layer", "Quant", bottom, top)
    message.quant_param.with_offset = layer.grid.offset != 0
    message.quant_param.scale = float(np.float32(1) / np.float32(layer.grid.scale))
    message.quant_param.offset = np.int8(layer.grid.offset).tobytes()
    message.quant_param.object_layer = name
    return message


def _dequant_layer(message: Any, layer: QuantizedLayer) -> Any:
    """In place on the layer's top, so that every name stays."""
    top = message.top[0]
    dequant = _new_layer(f"{message.name}_dequant_layer", "DeQuant", top, top)
    assert layer.grid is not None
    scale = layer.bias_scale() if layer.weight is not None else np.array([layer.grid.scale], np.float32)
    dequant.dequant_param.channel_wise = scale.size > 1
    dequant.dequant_param.object_layer = message.name
    dequant.dequant_param.layer_type = message.type
    zeros = np.zeros_like(scale)
    # deqscale, shift_bit, offset_w: a weight's offset is always 0, and a shift is for devices of an older kind.
    dequant.blobs.extend([float_blob(scale), float_blob(zeros), float_blob(zeros)])
    return dequant


def _move_bias_out(editor: CaffeEditor, message: Any, layer: QuantizedLayer) -> None:
    """A bias without an int32 form is added in float, behind what will be the DeQuant layer."""
    if len(message.blobs) < 2:
        return
    bias = _new_layer(f"{message.name}_bias_layer", "Bias", message.top[0], message.top[0])
    if message.type == "InnerProduct" and layer.layer.axis is not None:
        # Counted from the front: the top has fewer axes than the bottom, from whose end a negative axis counts.
        bias.bias_param.axis = layer.layer.axis
    bias.blobs.append(message.blobs[1])
    del message.blobs[1:]
    _parameters(message).bias_term = False
    editor.insert_after(message.name, bias)


def _set_blobs(
    message: Any,
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any] | None,
    weight_blob: Callable[..., Any],
    bias_blob: Callable[..., Any],
) -> None:
    """Replace a layer's weights; a bias that folding made is added."""
    message.blobs[0].CopyFrom(weight_blob(weight, message.blobs[0]))
    if bias is not None and len(message.blobs) > 1:
        message.blobs[1].CopyFrom(bias_blob(bias, message.blobs[1]))
    elif bias is not None:
        message.blobs.append(bias_blob(bias))
        _parameters(message).bias_term = True
    for spec in message.param:
        # Layers that share weights by name have them each for itself now: one may be quantized, the other not.
        spec.ClearField("name")
        spec.ClearField("share_mode")


def _in_caffe_order(message: Any, layer: QuantizedLayer, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An inner product's weight as the caffemodel stores it; other layers store it as the graph does."""
    if layer.layer.kind is not LayerKind.INNER_PRODUCT:
        return weight
    output_axis = 1 if message.inner_product_param.transpose else 0
    return weight if layer.layer.output_channel_axis == output_axis else weight.T


def _parameters(message: Any) -> Any:
    return message.inner_product_param if message.type == "InnerProduct" else message.convolution_param


def _new_layer(name: str, layer_type: str, bottom: str, top: str) -> Any:
    return message_class("caffe", "caffe.LayerParameter")(name=name, type=layer_type, bottom=[bottom], top=[top])
