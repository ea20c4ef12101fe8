"""The form for ONNX Runtime: integers under DequantizeLinear where both operands are integers, else plain floats.

ONNX Runtime turns a layer between DequantizeLinear and QuantizeLinear into its integer kernel. A NUQ table stands
between the activation's QuantizeLinear and DequantizeLinear, so the integer kernel remains. Where a layer's weight is
float (a codebook of float levels, or dense storage) its activation is decoded without DequantizeLinear: ONNX Runtime
would quantize such weights again by its own rule.

Activations of 16 bits become uint16, for which the model's operator set is raised to 21. ONNX Runtime has no integer
kernels for them: it decodes them and computes in float.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from amct_lite.errors import ExportError, ModelError
from amct_lite.export.activation_quantizer import quantize_tensor, table_lookup
from amct_lite.export.early_quantization import quantize_early
from amct_lite.export.editor import GraphEditor
from amct_lite.export.fake_quant import decoded_bias, fake_quantize
from amct_lite.export.integer_clipping import clip_integers
from amct_lite.export.operands import OperandReplacer
from amct_lite.export.shift import refuse_shifts
from amct_lite.export.storage import Storage, insert_weight, is_integer, storage_of
from amct_lite.graph.model import Model
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = ["qdq_model"]

# The first opset whose QuantizeLinear and DequantizeLinear take 16 bits.
OPSET_OF_16_BITS = 21


def qdq_model(model: Model, layers: Sequence[QuantizedLayer], storage: Storage | None = None) -> ir.Model:
    """Build the form for ONNX Runtime.

    Args:
        model: The float model, opset 13 or newer (per-channel DequantizeLinear); it is not changed.
        layers: Its quantized layers, in graph order.
        storage: How weights are stored; None for codebooks packed and everything else as int8.

    Raises:
        ExportError: A layer's weight cannot be stored so, the record has shifts, or a layer's input has 16 bits and
            the model's operator set cannot be raised to the one that has them.
    """
    refuse_shifts(layers)
    editor = _editor(model, layers, storage)
    replacer = OperandReplacer(
        editor,
        activation=partial(_activation, storage),
        weight=partial(_weight, storage),
        bias=partial(_bias, storage),
        activation_kind=lambda layer: is_integer(layer, storage),
    )
    for layer in layers:
        replacer.replace(layer)
    quantize_early(editor)
    clip_integers(editor)
    editor.finish()
    return editor.ir


def _editor(model: Model, layers: Sequence[QuantizedLayer], storage: Storage | None) -> GraphEditor:
    wide = [layer for layer in layers if layer.grid and layer.grid.num_bits > 8 and is_integer(layer, storage)]
    if not wide:
        return GraphEditor(model)
    try:
        return GraphEditor(model, OPSET_OF_16_BITS)
    except ModelError as error:
        raise ExportError(
            f"Its input has 16 bits, which QuantizeLinear takes from opset {OPSET_OF_16_BITS} on. {error.cause}",
            layer=wide[0].layer.name,
            remedy=f"Set its num_bits to 8, or export the float model with opset {OPSET_OF_16_BITS}.",
        ) from error


def _activation(storage: Storage | None, editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    if not is_integer(layer, storage):
        return fake_quantize(editor, node, layer)
    tensor, name = quantize_tensor(editor, layer), layer.layer.name
    value, table = tensor.value, layer.activation_table()
    if table is not None:
        unsigned = (table.astype(np.int16) + 128).astype(np.uint8)
        value = table_lookup(editor, node, value, unsigned, f"{name}.quant.nuq")
    return editor.insert(node, "DequantizeLinear", [value, tensor.scale, tensor.zero_point], f"{name}.dequant")


def _weight(storage: Storage | None, editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    return insert_weight(editor, node, layer, storage_of(layer, storage))


def _bias(storage: Storage | None, editor: GraphEditor, node: ir.Node, layer: QuantizedLayer) -> ir.Value:
    if layer.bias is None or not is_integer(layer, storage):
        return decoded_bias(editor, node, layer)
    axis = 0 if layer.scale_axis is not None else None
    return editor.dequantize(node, layer.bias, layer.bias_scale(), f"{layer.layer.name}.bias.quantized", axis)
