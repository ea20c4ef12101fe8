"""The forms of a Caffe source: a fake-quant pair for stock Caffe, and AMCT's deploy pair.

Names, order and unquantized parameters of the network survive; layers that only training uses are left out. Where
BatchNorm and Scale layers were folded into a quantized layer they disappear; at a layer that stays float they stay too.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
from google.protobuf import text_format

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.export.caffe_blobs import float_blob, int8_blob, int32_blob
from amct_lite.export.caffe_editor import CaffeEditor
from amct_lite.export.caffe_quant_layers import (
    anti_quant_layer,
    dequant_layer,
    new_layer,
    python_quant_layer,
    python_shift_layer,
    quant_layer,
)
from amct_lite.export.float16 import decode_scale, in_simulated_precision
from amct_lite.export.operands import refuse_float_weights, refuse_wide_activations
from amct_lite.export.relu6 import relax_relu6_layers
from amct_lite.files.atomic import write_bytes_atomically, write_text_atomically
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import LayerKind

__all__ = ["deploy_pair", "fake_quant_pair", "float_pair", "write_pair"]

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
    layers = in_simulated_precision(layers)
    editor = CaffeEditor(network)
    _take_out_folded(editor, layers, folded)
    _insert_quantizers(editor, layers, python_quant_layer)
    for layer in layers:
        if not layer.has_weight:
            continue
        message = editor.layer(layer.layer.name)
        if layer.shift_bit and not layer.has_bias:
            _move_bias_out(editor, message, layer)
        bias = layer.decode_bias() if layer.has_bias else None
        weight = _in_caffe_order(message, layer, layer.decode_weight())
        _set_blobs(message, weight, bias, float_blob, float_blob)
        if layer.shift_bit:
            editor.insert_after(message.name, python_shift_layer(message, layer))
    return editor.pair()


def deploy_pair(network: CaffeNetwork, layers: Sequence[QuantizedLayer], folded: Mapping[str, str]) -> Pair:
    """Build AMCT's deploy pair: Quant, a layer on int8 weights and int32 bias, DeQuant. Stock Caffe cannot run it.

    An input of Pooling or Eltwise that is quantized gets Quant and AntiQuant: behind a Pooling, which selects among
    int8 values, and in front of an Eltwise.

    Args:
        network: The network with its weights; it is not changed.
        layers: Its quantized layers, in graph order, by their Caffe names.
        folded: BatchNorm or Scale layer -> the layer that took it in.

    Returns:
        (prototxt, caffemodel).

    Raises:
        ExportError: A layer is none of the network's, its activation is clustered, its weights stay float, or what only
            AntiQuant decodes has an offset.
    """
    refuse_float_weights(layers)
    refuse_wide_activations(layers)
    editor = CaffeEditor(network)
    _take_out_folded(editor, layers, folded)
    _insert_quantizers(editor, layers, quant_layer)
    for layer in layers:
        message = editor.layer(layer.layer.node_name)
        if layer.layer.kind is LayerKind.OPERATOR_INPUT:
            _decode_operand(editor, message, layer)
            continue
        if layer.weight is not None:
            if layer.bias is None:
                _move_bias_out(editor, message, layer)
            weight = _in_caffe_order(message, layer, layer.weight)
            _set_blobs(message, weight, layer.bias, int8_blob, int32_blob)
        editor.insert_after(message.name, dequant_layer(message, layer))
    relax_relu6_layers(editor.layers)
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
    """Put a quantizer in front of each quantized bottom; those that quantize the same blob alike share one."""
    tops: dict[Any, str] = {}
    for layer in layers:
        if layer.grid is None:
            continue
        name, index = layer.layer.node_name, layer.layer.activation_index
        message = editor.layer(name)
        decoded = (decode_scale(layer), layer.activation_levels, layer.activation_costs)
        key = (editor.bottom_value(name, index), layer.grid, decoded)
        if key not in tops:
            tops[key] = editor.new_blob(f"{name}_{index}_quant")
            quantizer = make(layer, message.bottom[index], tops[key])
            quantizer.name = editor.new_layer_name(quantizer.name)
            editor.insert_before(name, quantizer)
        message.bottom[index] = tops[key]


def _decode_operand(editor: CaffeEditor, message: Any, layer: QuantizedLayer) -> None:
    index = layer.layer.activation_index
    if message.type == "Pooling":
        name, top = f"{message.name}_anti_quant_layer", message.top[0]
        editor.insert_after(message.name, anti_quant_layer(layer, editor.new_layer_name(name), top, top))
        return
    top = editor.new_blob(f"{message.name}_{index}_anti_quant")
    name = editor.new_layer_name(f"{message.name}_{index}_anti_quant_layer")
    editor.insert_before(message.name, anti_quant_layer(layer, name, message.bottom[index], top))
    message.bottom[index] = top


def _move_bias_out(editor: CaffeEditor, message: Any, layer: QuantizedLayer) -> None:
    """A bias without an int32 form is added in float, behind what will be the DeQuant layer."""
    if len(message.blobs) < 2:
        return
    bias = new_layer(f"{message.name}_bias_layer", "Bias", message.top[0], message.top[0])
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
