"""Replace the operands of quantized layers: activations and weights once for all that share them, biases each."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from amct_lite.errors import ExportError
from amct_lite.export.activation_quantizer import QuantizerKey, quantizer_key
from amct_lite.export.editor import GraphEditor
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = ["MakeOperand", "refuse_float_weights", "replace_operands"]

MakeOperand = Callable[[GraphEditor, ir.Node, QuantizedLayer], ir.Value]
"""Adds what a form needs in front of a layer's node and returns the node's new operand."""


def replace_operands(
    editor: GraphEditor,
    layers: Sequence[QuantizedLayer],
    *,
    activation: MakeOperand,
    weight: MakeOperand,
    bias: MakeOperand,
) -> None:
    """Give each layer's node the operands of a form.

    Args:
        editor: The graph.
        layers: Its quantized layers, in graph order, so that what is shared stands in front of its first user.
        activation: Makes the quantized activation; called once for layers that quantize the same tensor alike.
        weight: Makes the quantized weight; called once for tied layers, not for weights that stay float.
        bias: Makes the quantized bias; called where a layer has a constant one.
    """
    activations: dict[QuantizerKey, ir.Value] = {}
    weights: dict[str, ir.Value] = {}
    for layer in layers:
        node, view, key = editor.node_of(layer.layer), layer.layer, quantizer_key(layer)
        if key not in activations:
            activations[key] = activation(editor, node, layer)
        node.replace_input_with(view.activation_index, activations[key])
        if layer.weight is not None and view.weight is not None and view.weight_index is not None:
            if view.weight not in weights:
                weights[view.weight] = weight(editor, node, layer)
            node.replace_input_with(view.weight_index, weights[view.weight])
        if layer.bias is not None:
            node.replace_input_with(2, bias(editor, node, layer))


def refuse_float_weights(layers: Sequence[QuantizedLayer]) -> None:
    """Refuse layers of which only the activation is quantized, for the forms that cannot express them.

    Raises:
        ExportError: There is such a layer.
    """
    for layer in layers:
        if layer.has_float_weights:
            raise ExportError(
                "Its weights stay float, and this form's layers compute on int8 weights.",
                layer=layer.layer.name,
                remedy="Quantize its weights too, or use the target 'onnxruntime'.",
            )
