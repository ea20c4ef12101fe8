"""The Ascend deploy form: AscendQuant, a layer on int8 weights and int32 bias, AscendDequant (AMCT's deploy model).

The nodes are in the default domain, as Ascend's compiler expects, so no general runtime can load this file. The
compiler takes the activation's offset back through the bias. docs/deploy_forms.md has the arithmetic.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from amct_lite.export.activation_quantizer import table_lookup
from amct_lite.export.ascend_bias import find_bias_add, to_integer_add
from amct_lite.export.ascend_param import pack_dequant_param
from amct_lite.export.editor import GraphEditor
from amct_lite.export.operands import (
    OperandReplacer,
    refuse_float_weights,
    refuse_offset,
    refuse_wide_activations,
)
from amct_lite.export.relu6 import relax_relu6
from amct_lite.graph.model import Model
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import LayerKind

__all__ = ["ascend_model"]

# They only select values, so they run on int8 and are decoded behind.
_SELECTING = frozenset({"MaxPool"})


def ascend_model(model: Model, layers: Sequence[QuantizedLayer]) -> ir.Model:
    """Build the Ascend deploy form.

    Args:
        model: The float model; it is not changed.
        layers: Its quantized layers, in graph order.

    Raises:
        ExportError: A layer's weights stay float, its input has 16 bits, or what only AscendAntiQuant decodes has an
            offset.
    """
    refuse_float_weights(layers)
    refuse_wide_activations(layers)
    editor = GraphEditor(model)
    replacer = OperandReplacer(editor, activation=_quantize, weight=_int8_weight, bias=_int32_bias)
    for layer in layers:
        replacer.replace(layer)
    for layer in layers:
        if layer.layer.kind is LayerKind.OPERATOR_INPUT:
            _decode_operand(editor, layer)
        else:
            _dequantize_output(editor, layer)
    relax_relu6(editor.graph)
    editor.finish()
    return editor.ir


def _quantize(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    assert layer.grid is not None
    name = layer.layer.node_name
    activation = node.inputs[layer.layer.activation_index]
    attributes = {
        "scale": float(np.float32(1) / np.float32(layer.grid.scale)),
        "offset": float(layer.grid.offset),
        "dst_type": "INT8",
    }
    value = editor.insert(node, "AscendQuant", [activation], f"{name}.quant", attributes)
    table = layer.activation_table()
    if table is None:
        return value
    # The table is indexed from 0, levels run from -128.
    wide = editor.insert(node, "Cast", [value], f"{name}.quant.int16", {"to": int(ir.DataType.INT16)})
    shift = editor.constant(f"{name}.quant.q_min", np.int16(128))
    index = editor.insert(node, "Add", [wide, shift], f"{name}.quant.index")
    return table_lookup(editor, node, index, table, f"{name}.quant.nuq")


def _int8_weight(editor: GraphEditor, _node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    assert layer.weight is not None
    return editor.constant(f"{layer.layer.weight}.quantized", layer.weight)


def _int32_bias(editor: GraphEditor, _node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    assert layer.bias is not None
    return editor.constant(f"{layer.layer.name}.bias.quantized", layer.bias)


def _decode_operand(editor: GraphEditor, layer: QuantizedLayer) -> None:
    """Make floats of an operator's quantized input again: behind an operator that runs on int8, else in front."""
    assert layer.grid is not None
    refuse_offset(layer, "AscendAntiQuant")
    node, index = editor.node_of(layer.layer), layer.layer.activation_index
    name, attributes = f"{node.name}.anti_quant", {"scale": float(np.float32(layer.grid.scale))}
    if node.op_type in _SELECTING:
        editor.insert_after_output(node, "AscendAntiQuant", [], name, attributes)
        node.outputs[0].type = ir.TensorType(ir.DataType.INT8)
    else:
        node.replace_input_with(index, editor.insert(node, "AscendAntiQuant", [node.inputs[index]], name, attributes))


def _dequantize_output(editor: GraphEditor, layer: QuantizedLayer) -> None:
    assert layer.grid is not None
    node, name = editor.node_of(layer.layer), f"{layer.layer.name}.dequant"
    float_bias = node.inputs[2] if layer.bias is None and len(node.inputs) > 2 else None
    if float_bias is not None:
        node.replace_input_with(2, None)
    scale = layer.accumulator_scale()
    param = editor.constant(f"{name}.param", pack_dequant_param(scale, layer.shift_bit or 0))
    # What the integer layer puts out is int32; the graph still says float.
    node.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    added = find_bias_add(node, layer)
    if added is not None:
        to_integer_add(editor, added, layer)
    dequantized = editor.insert_after_output(
        node if added is None else added.node, "AscendDequant", [param], name, {"dtype": 0}
    )
    if float_bias is not None:
        _add_float_bias(editor, layer, dequantized.producer(), float_bias)


def _add_float_bias(editor: GraphEditor, layer: QuantizedLayer, dequant: ir.Node | None, bias: ir.Value) -> None:
    """Add a bias that has no int32 form (it is computed, or is no vector over the channels) in float."""
    assert dequant is not None
    name = f"{layer.layer.name}.bias"
    if layer.layer.kind is not LayerKind.INNER_PRODUCT:
        channels_first = editor.constant(
            f"{name}.shape", np.array([-1, *(1 for _ in layer.layer.kernel_shape)], np.int64)
        )
        bias = editor.insert(dequant, "Reshape", [bias, channels_first], f"{name}.float")
    editor.insert_after_output(dequant, "Add", [bias], f"{name}.add", {})
