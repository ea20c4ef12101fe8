"""Inputs of operators that are no layers, seen as layers without weights: what is quantized of them is one input."""

import onnx_ir as ir

from amct_lite.types import Layer, LayerKind

__all__ = ["find_operator_input", "operator_input"]


def operator_input(node: ir.Node, index: int) -> Layer:
    """The input of an operator as a layer; its name is AMCT's key for it, "{operator}:{index}".

    Args:
        node: An operator of the main graph, with a name.
        index: One of its inputs that is there.
    """
    value = node.inputs[index]
    assert value is not None
    rank = value.shape.rank() if value.shape is not None else 0
    return Layer(
        name=f"{node.name}:{index}",
        op_type=node.op_type,
        kind=LayerKind.OPERATOR_INPUT,
        activation=str(value.name),
        activation_index=index,
        channel_axis=1 if rank > 1 else -1,
        output=str(node.outputs[0].name),
        operator=str(node.name),
    )


def find_operator_input(graph: ir.Graph, key: str) -> Layer | None:
    """The input that a key names, or None where the main graph has no such operator or input.

    Args:
        graph: The main graph.
        key: For example "Add_7:1".
    """
    name, _, index = key.rpartition(":")
    node = next((node for node in graph if node.name == name), None) if index.isdecimal() else None
    if node is None or int(index) >= len(node.inputs) or node.inputs[int(index)] is None:
        return None
    return operator_input(node, int(index))
