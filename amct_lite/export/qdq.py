"""The QDQ form for ONNX Runtime: uint8 activations, int8 weights, int32 biases, each with its DequantizeLinear.

ONNX Runtime turns a layer between DequantizeLinear and QuantizeLinear into its integer kernel. A NUQ table stands
between the activation's QuantizeLinear and DequantizeLinear, so the integer kernel remains. A layer whose weights stay
float decodes its activation as in the fake-quant form, for the reason that stands there.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from amct_lite.export.activation_quantizer import quantize_tensor, table_lookup
from amct_lite.export.early_quantization import quantize_early
from amct_lite.export.editor import GraphEditor
from amct_lite.export.fake_quant import fake_quantize
from amct_lite.export.operands import replace_operands
from amct_lite.graph.model import Model
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = ["qdq_model"]


def qdq_model(model: Model, layers: Sequence[QuantizedLayer]) -> ir.Model:
    """Build the QDQ form.

    Args:
        model: The float model, opset 13 or newer (per-channel DequantizeLinear); it is not changed.
        layers: Its quantized layers, in graph order.
    """
    editor = GraphEditor(model)
    replace_operands(editor, layers, activation=_quantize_dequantize, weight=_weight, bias=_bias)
    quantize_early(editor)
    editor.drop_unused_initializers()
    return editor.ir


def _quantize_dequantize(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    if layer.has_float_weights:
        return fake_quantize(editor, node, layer)
    tensor, name = quantize_tensor(editor, layer), layer.layer.name
    value, table = tensor.value, layer.activation_table()
    if table is not None:
        unsigned = (table.astype(np.int16) + 128).astype(np.uint8)
        value = table_lookup(editor, node, value, unsigned, f"{name}.quant.nuq")
    return editor.insert(node, "DequantizeLinear", [value, tensor.scale, tensor.zero_point], f"{name}.dequant")


def _weight(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    assert layer.weight is not None
    name = f"{layer.layer.weight}.quantized"
    return _dequantize(editor, node, layer.weight, layer.scale_w, name, layer.scale_axis)


def _bias(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    assert layer.bias is not None
    axis = 0 if layer.scale_axis is not None else None
    name = f"{layer.layer.name}.bias.quantized"
    return _dequantize(editor, node, layer.bias, layer.bias_scale(), name, axis)


def _dequantize(
    editor: GraphEditor,
    node: ir.Node,
    values: np.ndarray,
    scales: np.ndarray,
    name: str,
    axis: int | None,
) -> ir.Value:
    """A constant under DequantizeLinear; with one scale it is a scalar, with several it runs along an axis."""
    shaped = scales if axis is not None else scales.reshape(())
    scale = editor.constant(f"{name}.scale", shaped)
    zero_point = editor.constant(f"{name}.zero_point", np.zeros(shaped.shape, values.dtype))
    attributes = {} if axis is None else {"axis": axis}
    return editor.insert(
        node,
        "DequantizeLinear",
        [editor.constant(name, values), scale, zero_point],
        f"{name}.dequant",
        attributes,
    )
