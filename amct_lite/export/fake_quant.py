"""The fake-quant form: float arithmetic on quantized values, in stock operators, the same on every runtime.

Activations go through QuantizeLinear and are decoded by Cast, Sub and Mul (or by one table) instead of
DequantizeLinear: where ONNX Runtime sees DequantizeLinear in front of a layer with float weights it quantizes those
weights again by its own rule, and the model would silently compute something else.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from amct_lite.export.activation_quantizer import QuantizedTensor, quantize_tensor, table_lookup
from amct_lite.export.editor import GraphEditor
from amct_lite.export.operands import replace_operands
from amct_lite.graph.model import Model
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = ["fake_quant_model", "fake_quantize"]


def fake_quant_model(model: Model, layers: Sequence[QuantizedLayer]) -> ir.Model:
    """Build the fake-quant form.

    Args:
        model: The float model; it is not changed.
        layers: Its quantized layers, in graph order.
    """
    editor = GraphEditor(model)
    replace_operands(editor, layers, activation=fake_quantize, weight=_decoded_weight, bias=_decoded_bias)
    editor.drop_unused_initializers()
    return editor.ir


def fake_quantize(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    """Quantize a layer's activation and decode it without DequantizeLinear, in front of its node."""
    tensor = quantize_tensor(editor, layer)
    table = layer.activation_table()
    name = f"{layer.layer.name}.quant"
    if table is None:
        return _decode(editor, node, tensor, layer, name)
    values = (table.astype(np.float32) - np.float32(layer.grid.offset)) * np.float32(layer.grid.scale)
    return table_lookup(editor, node, tensor.value, values, f"{name}.nuq")


def _decode(editor: GraphEditor, node: ir.Node, tensor: QuantizedTensor, layer: QuantizedLayer, name: str) -> ir.Value:
    value = editor.insert(node, "Cast", [tensor.value], f"{name}.float", {"to": int(ir.DataType.FLOAT)})
    zero_point = layer.grid.offset + 128
    if zero_point != 0:
        shift = editor.constant(f"{name}.zero_point.float", np.float32(zero_point))
        value = editor.insert(node, "Sub", [value, shift], f"{name}.centred")
    return editor.insert(node, "Mul", [value, tensor.scale], f"{name}.decoded")


def _decoded_weight(editor: GraphEditor, _node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    return editor.constant(f"{layer.layer.weight}.quantized", layer.decode_weight())


def _decoded_bias(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    shape = node.inputs[2].shape if node.inputs[2] is not None else None
    values = layer.decode_bias().reshape(tuple(shape.numpy()) if shape else (-1,))
    return editor.constant(f"{layer.layer.name}.bias.quantized", values)
