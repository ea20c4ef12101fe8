"""Replace the operands of quantized layers: activations and weights once for all that share them, biases each."""

from collections.abc import Callable, Hashable, Sequence

import onnx_ir as ir

from amct_lite.errors import ExportError
from amct_lite.export.activation_quantizer import quantizer_key
from amct_lite.export.editor import GraphEditor
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = ["MakeOperand", "OperandReplacer", "refuse_float_weights", "refuse_offset", "refuse_wide_activations"]

MakeOperand = Callable[[GraphEditor, ir.Node, QuantizedLayer], ir.Value]
"""Adds what a form needs in front of a layer's node and returns the node's new operand."""


class OperandReplacer:
    """Gives layers' nodes the operands of a form, one layer at a time.

    Layers come in graph order, so that what is shared stands in front of its first user.
    """

    def __init__(
        self,
        editor: GraphEditor,
        *,
        activation: MakeOperand,
        weight: MakeOperand,
        bias: MakeOperand,
        activation_kind: Callable[[QuantizedLayer], Hashable] = lambda _layer: None,
    ) -> None:
        """Say how a form makes its operands.

        Args:
            editor: The graph.
            activation: Makes the quantized activation; called once for layers that quantize the same tensor alike.
            weight: Makes the quantized weight; called once for tied layers.
            bias: Makes the new bias; called where a layer gets one.
            activation_kind: Layers of different kinds share no activation, even where they quantize it alike.
        """
        self._editor = editor
        self._make_activation, self._make_weight, self._make_bias = activation, weight, bias
        self._activation_kind = activation_kind
        self._activations: dict[Hashable, ir.Value] = {}
        self._weights: dict[Hashable, ir.Value] = {}

    def replace(self, layer: QuantizedLayer) -> None:
        """Replace all operands of a layer."""
        self.replace_activation(layer)
        self.replace_weight(layer)

    def replace_activation(self, layer: QuantizedLayer) -> None:
        """Quantize the layer's input, where it is quantized at all."""
        if layer.grid is None:
            return
        key = (quantizer_key(layer), self._activation_kind(layer))
        node = self._editor.node_of(layer.layer)
        if key not in self._activations:
            self._activations[key] = self._make_activation(self._editor, node, layer)
        node.replace_input_with(layer.layer.activation_index, self._activations[key])

    def replace_weight(self, layer: QuantizedLayer) -> None:
        """Give the layer its new weight and bias."""
        node, view = self._editor.node_of(layer.layer), layer.layer
        if view.weight is not None and view.weight_index is not None and layer.replaces_weight:
            # Tied layers have the same scales, but where scales of 19 bits are simulated: those are each layer's own.
            key = (view.weight, layer.scale_w.tobytes())
            if key not in self._weights:
                self._weights[key] = self._make_weight(self._editor, node, layer)
            node.replace_input_with(view.weight_index, self._weights[key])
        if layer.has_bias:
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, self._make_bias(self._editor, node, layer))


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


def refuse_wide_activations(layers: Sequence[QuantizedLayer]) -> None:
    """Refuse layers whose activation has more than 8 bits, for the forms that hold int8.

    Raises:
        ExportError: There is such a layer.
    """
    for layer in layers:
        if layer.grid is not None and layer.grid.num_bits > 8:
            raise ExportError(
                f"Its input has {layer.grid.num_bits} bits, and this form's layers compute on int8.",
                layer=layer.layer.name,
                remedy="Set the num_bits of its activation_quant_params to 8, or use the target 'onnxruntime'.",
            )


def refuse_offset(layer: QuantizedLayer, operator: str) -> None:
    """Refuse a grid with an offset, for an operator that only multiplies levels by their step.

    Raises:
        ExportError: The layer's input has such a grid.
    """
    if layer.grid is not None and layer.grid.offset != 0:
        raise ExportError(
            f"{operator} only multiplies, and the grid of this input has the offset {layer.grid.offset}.",
            layer=layer.layer.name,
            remedy="Calibrate again with this target: its tensor_quantize grids are symmetric.",
        )
