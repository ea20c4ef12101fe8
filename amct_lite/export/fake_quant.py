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
from amct_lite.export.operands import OperandReplacer
from amct_lite.export.shift import simulate_shift
from amct_lite.graph.model import Model
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import Grid

__all__ = ["fake_quant_model", "fake_quantize", "fake_quantizer"]


def fake_quant_model(model: Model, layers: Sequence[QuantizedLayer]) -> ir.Model:
    """Build the fake-quant form.

    Args:
        model: The float model; it is not changed.
        layers: Its quantized layers, in graph order.
    """
    editor = GraphEditor(model)
    replacer = fake_quantizer(editor)
    for layer in layers:
        replacer.replace(layer)
    for layer in layers:
        simulate_shift(editor, layer)
    editor.drop_unused_initializers()
    return editor.ir


def fake_quantizer(editor: GraphEditor) -> OperandReplacer:
    """What gives a graph the operands of the fake-quant form, layer by layer."""
    return OperandReplacer(editor, activation=fake_quantize, weight=_decoded_weight, bias=decoded_bias)


def fake_quantize(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    """Quantize a layer's input and decode it without DequantizeLinear."""
    assert layer.grid is not None
    if layer.grid.num_bits > 8:
        return _round_in_float(editor, node, layer, layer.grid)
    tensor = quantize_tensor(editor, layer)
    table = layer.activation_table()
    name = f"{layer.layer.name}.quant"
    if table is None:
        return _decode(editor, node, tensor, layer, name)
    values = (table.astype(np.float32) - np.float32(layer.grid.offset)) * np.float32(layer.grid.scale)
    return table_lookup(editor, node, tensor.value, values, f"{name}.nuq")


def _decode(editor: GraphEditor, node: ir.Node, tensor: QuantizedTensor, layer: QuantizedLayer, name: str) -> ir.Value:
    assert layer.grid is not None
    value = editor.insert(node, "Cast", [tensor.value], f"{name}.float", {"to": int(ir.DataType.FLOAT)})
    zero_point = layer.grid.offset + 128
    if zero_point != 0:
        shift = editor.constant(f"{name}.zero_point.float", np.float32(zero_point))
        value = editor.insert(node, "Sub", [value, shift], f"{name}.centred")
    return editor.insert(node, "Mul", [value, tensor.scale], f"{name}.decoded")


def _round_in_float(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer, grid: Grid) -> ir.Value:
    """Quantize and decode in float32, step by step as `uniform.grid` does.

    QuantizeLinear takes 16 bits only from opset 21 on, and this form keeps the model's own.
    """
    name = f"{layer.layer.name}.quant"
    scale = editor.constant(f"{name}.scale", np.float32(grid.scale))
    ends = [
        editor.constant(f"{name}.{end}", np.float32(level - grid.offset))
        for end, level in (("lowest", grid.q_min), ("highest", grid.q_max))
    ]
    value = editor.insert(node, "Div", [node.inputs[layer.layer.activation_index], scale], f"{name}.steps")
    value = editor.insert(node, "Round", [value], f"{name}.rounded")
    value = editor.insert(node, "Clip", [value, *ends], name)
    return editor.insert(node, "Mul", [value, scale], f"{name}.decoded")


def _decoded_weight(editor: GraphEditor, _node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    return editor.constant(f"{layer.layer.weight}.quantized", layer.decode_weight())


def decoded_bias(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    """A layer's bias in float32, shaped like the one that it had."""
    shape = node.inputs[2].shape if node.inputs[2] is not None else None
    values = layer.decode_bias().reshape(tuple(shape.numpy()) if shape else (-1,))
    return editor.constant(f"{layer.layer.name}.bias.quantized", values)
