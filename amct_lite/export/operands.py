"""Replace the operands of quantized layers: activations and weights once for all that share them, biases each."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from amct_lite.export.activation_quantizer import QuantizerKey, quantizer_key
from amct_lite.export.editor import GraphEditor
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = ["MakeOperand", "OperandReplacer", "replace_operands"]

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
        weight: Makes the quantized weight; called once for tied layers.
        bias: Makes the new bias; called where a layer gets one.
    """
    replacer = OperandReplacer(editor, activation=activation, weight=weight, bias=bias)
    for layer in layers:
        replacer.replace_activation(layer)
        replacer.replace_weight(layer)


class OperandReplacer:
    """The same one layer at a time, in graph order: first its activation, then its weight and bias."""

    def __init__(self, editor: GraphEditor, *, activation: MakeOperand, weight: MakeOperand, bias: MakeOperand) -> None:
        self._editor = editor
        self._make_activation, self._make_weight, self._make_bias = activation, weight, bias
        self._activations: dict[QuantizerKey, ir.Value] = {}
        self._weights: dict[str, ir.Value] = {}

    def replace_activation(self, layer: QuantizedLayer) -> None:
        """Quantize the layer's input, where it is quantized at all."""
        key = quantizer_key(layer)
        if key is None:
            return
        node = self._editor.node_of(layer.layer)
        if key not in self._activations:
            self._activations[key] = self._make_activation(self._editor, node, layer)
        node.replace_input_with(layer.layer.activation_index, self._activations[key])

    def replace_weight(self, layer: QuantizedLayer) -> None:
        """Give the layer its new weight and bias."""
        node, view = self._editor.node_of(layer.layer), layer.layer
        if view.weight is not None and view.weight_index is not None and layer.has_weight:
            if view.weight not in self._weights:
                self._weights[view.weight] = self._make_weight(self._editor, node, layer)
            node.replace_input_with(view.weight_index, self._weights[view.weight])
        if layer.has_bias:
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, self._make_bias(self._editor, node, layer))
