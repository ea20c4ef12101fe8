"""The fake-quant form: float arithmetic on quantized values, in stock operators, the same on every runtime.

Activations go through QuantizeLinear and are decoded by Cast, Sub and Mul (or by one table) instead of
DequantizeLinear: where ONNX Runtime sees DequantizeLinear in front of a layer with float weights it quantizes those
weights again by its own rule, and the model would silently compute something else.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.export.activation_quantizer import QuantizedTensor, quantize_tensor, table_lookup
from amct_lite.export.editor import GraphEditor
from amct_lite.export.float16 import decode_scale, float16_factor, in_simulated_precision
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

    Raises:
        ExportError: A layer is to be simulated in float16, which cannot hold its step's reciprocal.
    """
    layers = in_simulated_precision(layers)
    editor = GraphEditor(model)
    replacer = fake_quantizer(editor)
    for layer in layers:
        replacer.replace(layer)
    for layer in layers:
        simulate_shift(editor, layer)
    editor.finish()
    return editor.ir


def fake_quantizer(editor: GraphEditor) -> OperandReplacer:
    """What gives a graph the operands of the fake-quant form, layer by layer."""
    return OperandReplacer(
        editor, activation=fake_quantize, weight=_decoded_weight, bias=decoded_bias, activation_kind=_decoding
    )


def fake_quantize(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    """Quantize a layer's input and decode it without DequantizeLinear."""
    assert layer.grid is not None
    if layer.float16 or layer.grid.num_bits > 8:
        return _round_in_float(editor, node, layer, layer.grid)
    tensor = quantize_tensor(editor, layer)
    table = layer.activation_table()
    name = f"{layer.layer.name}.quant"
    if table is None:
        return _decode(editor, node, tensor, layer, name)
    return table_lookup(editor, node, tensor.value, _decoded_table(layer, table), f"{name}.nuq")


def _decoding(layer: QuantizedLayer) -> Hashable:
    return (layer.float16, decode_scale(layer))


def _decoded_table(layer: QuantizedLayer, table: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    assert layer.grid is not None
    return (table.astype(np.float32) - np.float32(layer.grid.offset)) * np.float32(decode_scale(layer))


def _decode(editor: GraphEditor, node: ir.Node, tensor: QuantizedTensor, layer: QuantizedLayer, name: str) -> ir.Value:
    assert layer.grid is not None
    value = editor.insert(node, "Cast", [tensor.value], f"{name}.float", {"to": int(ir.DataType.FLOAT)})
    zero_point = layer.grid.offset + 128
    if zero_point != 0:
        shift = editor.constant(f"{name}.zero_point.float", np.float32(zero_point))
        value = editor.insert(node, "Sub", [value, shift], f"{name}.centred")
    return editor.insert(node, "Mul", [value, tensor.scale], f"{name}.decoded")


def _round_in_float(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer, grid: Grid) -> ir.Value:
    """Quantize and decode in floats, step by step as `uniform.grid` does, or as a device that does so in float16.

    QuantizeLinear takes 16 bits only from opset 21 on, and this form keeps the model's own.
    """
    name = f"{layer.layer.name}.quant"
    ends = [
        editor.constant(f"{name}.{end}", np.float32(level - grid.offset))
        for end, level in (("lowest", grid.q_min), ("highest", grid.q_max))
    ]
    value = _steps_in_float16(editor, node, layer, name) if layer.float16 else _steps(editor, node, layer, name)
    value = editor.insert(node, "Round", [value], f"{name}.rounded")
    value = editor.insert(node, "Clip", [value, *ends], name)
    table = layer.activation_table()
    if table is not None:
        lowest = editor.constant(f"{name}.shift", np.float32(grid.offset + 128))
        value = editor.insert(node, "Add", [value, lowest], f"{name}.levels")
        value = editor.insert(node, "Cast", [value], f"{name}.uint8", {"to": int(ir.DataType.UINT8)})
        return table_lookup(editor, node, value, _decoded_table(layer, table), f"{name}.nuq")
    scale = editor.constant(f"{name}.scale", np.float32(decode_scale(layer)))
    return editor.insert(node, "Mul", [value, scale], f"{name}.decoded")


def _steps(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer, name: str) -> ir.Value:
    assert layer.grid is not None
    step = editor.constant(f"{name}.step", np.float32(layer.grid.scale))
    return editor.insert(node, "Div", [node.inputs[layer.layer.activation_index], step], f"{name}.steps")


def _steps_in_float16(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer, name: str) -> ir.Value:
    """The product of two float16 numbers is exact in float32, so casting it rounds as a multiplication in float16."""
    factor = editor.constant(f"{name}.factor", float16_factor(layer))
    value = _through_float16(editor, node, node.inputs[layer.layer.activation_index], f"{name}.input")
    value = editor.insert(node, "Mul", [value, factor], f"{name}.steps")
    return _through_float16(editor, node, value, f"{name}.steps")


def _through_float16(editor: GraphEditor, node: ir.Node, value: ir.Value | None, name: str) -> ir.Value:
    half = editor.insert(node, "Cast", [value], f"{name}.float16", {"to": int(ir.DataType.FLOAT16)})
    return editor.insert(node, "Cast", [half], f"{name}.float32", {"to": int(ir.DataType.FLOAT)})


def _decoded_weight(editor: GraphEditor, _node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    return editor.constant(f"{layer.layer.weight}.quantized", layer.decode_weight())


def decoded_bias(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    """A layer's bias in float32, shaped like the one that it had."""
    shape = node.inputs[2].shape if node.inputs[2] is not None else None
    values = layer.decode_bias().reshape(tuple(shape.numpy()) if shape else (-1,))
    return editor.constant(f"{layer.layer.name}.bias.quantized", values)
