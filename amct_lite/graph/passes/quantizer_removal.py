"""QuantizeLinear and DequantizeLinear go: back from a QDQ model to the float one."""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.constants import add_initializer, constant_tensor, float32_array, unique_value_name
from amct_lite.graph.passes.unused import remove_unused
from amct_lite.graph.quantizers import Quantizer, find_pair, read_quantizer

__all__ = ["remove_quantizers"]

_NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp", "Abs"})
# Non-negative where all that they read is.
_KEEPING_SIGN = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten", "Reshape", "Transpose", "Squeeze"}
    | {"Unsqueeze", "Identity", "Dropout"}
)
_KEEPING_SIGNS = frozenset({"Concat", "Add", "Mul"})
# Clipping before or behind them is the same.
_SELECTING = frozenset({"MaxPool", "Concat", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})

Reader = tuple[ir.Node, int]


def remove_quantizers(model: ir.Model, clipping_readers: Collection[Reader] = ()) -> bool:
    """Take out every pair of QuantizeLinear and DequantizeLinear, and make floats of stored integers.

    Quantizing clips. Quantization tools leave Relu out in front of a grid that starts at 0, so taking the grid away
    there would change the function: a Clip to its range takes its place, unless nothing negative comes.

    Precondition: constants are initializers, the graph is sorted.
    Postcondition: no QuantizeLinear or DequantizeLinear is left in the main graph; graph inputs and outputs keep name,
    type and shape.

    Args:
        model: The model, changed in place.
        clipping_readers: (operator, input index) of those that will quantize this input again, which clips.

    Returns:
        Whether something was removed.

    Raises:
        ModelError: One has no partner, or the two of a pair have different factors.
    """
    graph = model.graph
    pairs = [node for node in graph if _is(node, "DequantizeLinear")]
    if not pairs and not any(_is(node, "QuantizeLinear") for node in graph):
        return False
    remover = _Remover(graph, frozenset(clipping_readers))
    for node in pairs:
        remover.remove(node)
    for node in graph:
        if _is(node, "QuantizeLinear") and (node.outputs[0].uses() or node.outputs[0].is_graph_output()):
            raise ModelError(
                "QuantizeLinear has no DequantizeLinear behind it: they must be paired.",
                layer=str(node.name),
                remedy="Export the model with each QuantizeLinear in front of its DequantizeLinear, as QDQ.",
            )
    remove_unused(model)
    return True


class _Remover:
    def __init__(self, graph: ir.Graph, clipping_readers: frozenset[Reader]) -> None:
        self._graph = graph
        self._clipping_readers = clipping_readers
        self._decoded: dict[tuple[str, bytes], ir.Value] = {}
        self._clipped: dict[tuple[str, bytes], ir.Value] = {}

    def remove(self, node: ir.Node) -> None:
        source, quantizer = find_pair(node)
        output = node.outputs[0]
        levels = constant_tensor(source)
        if levels is not None and source is node.inputs[0]:
            self._replace(node, self._decode(source, levels, quantizer))
            return
        clips = levels is None and quantizer.starts_at_zero and not _is_non_negative(source)
        readers = [(use.node, use.idx) for use in output.uses()]
        others = [
            reader
            for reader in readers
            if reader not in self._clipping_readers and not _clips_behind(reader[0], quantizer)
        ]
        if clips and (others or output.is_graph_output()):
            clipped = self._clip(source, quantizer)
            for reader, index in others:
                reader.replace_input_with(index, clipped)
            if output.is_graph_output():
                self._hand_over_output(node, clipped)
        self._replace(node, source)

    def _replace(self, node: ir.Node, value: ir.Value) -> None:
        output = node.outputs[0]
        for use in list(output.uses()):
            use.node.replace_input_with(use.idx, value)
        if output.is_graph_output():
            self._hand_over_output(node, value)
        self._graph.remove(node, safe=True)

    def _hand_over_output(self, node: ir.Node, value: ir.Value) -> None:
        """Let the graph return another value in place of a node's output, under the same name."""
        old = node.outputs[0]
        if value.producer() is None or value.is_graph_output():
            copy = ir.node("Identity", [value], name=f"{node.name}.identity")
            self._graph.insert_before(node, copy)
            value = copy.outputs[0]
        name, old.name = old.name, unique_value_name(self._graph, f"{old.name}.quantized")
        value.name, value.shape, value.type = name, old.shape, old.type
        for index, output in enumerate(self._graph.outputs):
            if output is old:
                self._graph.outputs[index] = value

    def _decode(self, source: ir.Value, levels: ir.TensorProtocol, quantizer: Quantizer) -> ir.Value:
        key = str(source.name), quantizer.scales.tobytes() + quantizer.offsets.tobytes()
        if key not in self._decoded:
            name = unique_value_name(self._graph, f"{source.name}.float")
            self._decoded[key] = add_initializer(self._graph, name, quantizer.decode(levels.numpy()))
        return self._decoded[key]

    def _clip(self, source: ir.Value, quantizer: Quantizer) -> ir.Value:
        key = str(source.name), quantizer.scales.tobytes()
        if key not in self._clipped:
            name = unique_value_name(self._graph, f"{source.name}.clipped")
            ends = [
                add_initializer(self._graph, unique_value_name(self._graph, f"{name}.{end}"), np.asarray(value))
                for end, value in (("min", np.float32(0)), ("max", np.float32(255) * quantizer.scales[0]))
            ]
            node = ir.node("Clip", [source, *ends], name=name)
            node.outputs[0].name = name
            node.outputs[0].type, node.outputs[0].shape = source.type, source.shape
            producer = source.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], node)
            else:
                self._graph.insert_after(producer, node)
            self._clipped[key] = node.outputs[0]
        return self._clipped[key]


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in ("", "ai.onnx")


def _clips_behind(node: ir.Node, quantizer: Quantizer) -> bool:
    """Whether the same grid follows an operator that only selects values: that one clips as well."""
    if node.op_type not in _SELECTING or node.outputs[0].is_graph_output():
        return False
    uses = [use.node for use in node.outputs[0].uses()]
    return bool(uses) and all(_is(user, "QuantizeLinear") and read_quantizer(user).equals(quantizer) for user in uses)


def _is_non_negative(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None:
        array = float32_array(value)
        return array is not None and bool((array >= 0).all())
    if node.op_type in _NON_NEGATIVE:
        return True
    if node.op_type == "Clip":
        lowest = float32_array(node.inputs[1]) if len(node.inputs) > 1 else None
        return lowest is not None and float(lowest) >= 0
    if node.op_type == "DequantizeLinear":
        return find_pair(node)[1].starts_at_zero
    if node.op_type in _KEEPING_SIGN:
        return _is_non_negative(node.inputs[0])
    return node.op_type in _KEEPING_SIGNS and all(_is_non_negative(value) for value in node.inputs)
