"""Why a layer cannot be quantized by any technique, as a sentence for the summary."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from amct_lite.graph.constants import constant_tensor
from amct_lite.types import Layer, LayerKind

__all__ = ["WeightFacts", "why_blocked"]

_RANKS = {
    LayerKind.INNER_PRODUCT: "a matrix",
    LayerKind.CONVOLUTION: "a filter",
    LayerKind.DECONVOLUTION: "a filter",
}


class WeightFacts:
    """What a graph says about the values that may be weights."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self._from_constants: set[ir.Value] = set(model.graph.initializers.values())
        self._dequantized: set[ir.Value] = set()
        self._finite: dict[str, bool] = {}
        for node in model.graph:
            self._follow(node)

    def _follow(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Constant" and node.domain == "":
            self._from_constants.update(node.outputs)
        elif inputs and all(value in self._from_constants for value in inputs):
            self._from_constants.update(node.outputs)
            if node.op_type == "DequantizeLinear" or any(value in self._dequantized for value in inputs):
                self._dequantized.update(node.outputs)

    def is_from_constants(self, value: ir.Value) -> bool:
        """Whether the value is an initializer or computed from nothing but initializers."""
        return value in self._from_constants

    def is_dequantized(self, value: ir.Value) -> bool:
        """Whether the value is computed from quantized constants."""
        return value in self._dequantized

    def initializer_name(self, value: ir.Value) -> str | None:
        """The name of the value if it is an initializer, overridable or not."""
        return value.name if value.is_initializer() else None

    def stored_shape(self, value: ir.Value) -> tuple[int, ...]:
        """The shape of the value if it is an initializer, else ()."""
        if not value.is_initializer() or value.const_value is None:
            return ()
        return tuple(int(dim) for dim in value.const_value.shape.numpy())

    def declared_shape(self, value: ir.Value) -> tuple[int, ...]:
        """The inferred shape of the value, () where it is not fully known."""
        if value.shape is None or not value.shape.is_static():
            return ()
        return tuple(int(dim) for dim in value.shape.numpy())

    def is_finite(self, value: ir.Value) -> bool:
        """Whether the value, a constant in float32 with elements, holds no NaN and no infinity."""
        name = str(value.name)
        if name not in self._finite:
            array = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
            # min and max pass NaN on, and need no array of the weight's size.
            self._finite[name] = bool(np.isfinite(array.min()) and np.isfinite(array.max()))
        return self._finite[name]


def why_blocked(node: ir.Node, layer: Layer, layers: Mapping[str, Layer], facts: WeightFacts) -> str | None:
    """Say why no technique can touch a layer.

    Args:
        node: The layer's operator.
        layer: The layer, with `tied_with` filled in.
        layers: All layers by name.
        facts: About the graph.

    Returns:
        A sentence, or None where nothing stands against it.
    """
    data = node.inputs[layer.activation_index]
    if data is not None and (producer := data.producer()) is not None and producer.op_type == "DequantizeLinear":
        return "Its input comes from DequantizeLinear: the layer is already quantized."
    if layer.weight_index is None:
        return _wrong_type("input", data.dtype if data is not None else None)
    weight = node.inputs[layer.weight_index]
    if weight is None:
        return "It has no weight."
    return _weight_stored_wrongly(layer, weight, facts) or _used_otherwise(node, layer, weight, layers, facts)


def _wrong_type(what: str, dtype: ir.DataType | None) -> str | None:
    if dtype is None or dtype == ir.DataType.FLOAT:
        return None
    return f"Its {what} is of type {dtype.name.lower()}, and only float32 is supported."


def _weight_stored_wrongly(layer: Layer, weight: ir.Value, facts: WeightFacts) -> str | None:
    if facts.is_dequantized(weight):
        return "Its weight comes from DequantizeLinear: the layer is already quantized."
    if weight.is_initializer() and weight.is_graph_input():
        return f"Its weight {weight.name!r} is also a graph input, so a caller may override it."
    tensor = constant_tensor(weight)
    if tensor is None and facts.is_from_constants(weight):
        return "Its weight is computed from other constants in the graph, as a packed weight is."
    if tensor is None:
        return "Its weight is not constant."
    if wrong_type := _wrong_type("weight", tensor.dtype):
        return wrong_type
    rank = len(layer.weight_shape)
    if rank != 2 if layer.kind is LayerKind.INNER_PRODUCT else rank < 3:
        return f"Its weight has rank {rank}, and only {_RANKS[layer.kind]} is supported."
    if layer.num_weights == 0:
        return f"Its weight is empty: its shape is {layer.weight_shape}."
    if not facts.is_finite(weight):
        return "Its weight holds NaN or infinity."
    return None


def _used_otherwise(
    node: ir.Node, layer: Layer, weight: ir.Value, layers: Mapping[str, Layer], facts: WeightFacts
) -> str | None:
    if weight.is_graph_output():
        return f"Its weight {weight.name!r} is also an output of the graph."
    for user, index in weight.uses():
        if user.graph is not facts.graph:
            return f"Its weight {weight.name!r} is also used in a subgraph, by operator {user.name!r}."
        partner = layers.get(str(user.name))
        if partner is None or partner.weight_index != index:
            return (
                f"Its weight {weight.name!r} is also used by operator {user.name!r} ({user.op_type}), "
                "which is no such layer."
            )
        if partner.output_channel_axis != layer.output_channel_axis:
            return (
                f"It shares its weight {weight.name!r} with layer {partner.name!r}, "
                "which has its output channels on another axis."
            )
    for factor in ("alpha", "beta") if layer.op_type == "Gemm" else ():
        if (number := node.attributes.get_float(factor, 1.0)) != 1.0:
            return f"Its {factor} is {number:g}, which cannot be folded into a constant that is used elsewhere."
    return None
