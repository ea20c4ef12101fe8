"""What counts as a constant of a graph, and how one is read, replaced or added."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "add_initializer",
    "all_graphs",
    "constant_tensor",
    "float32_array",
    "is_private",
    "replace_array",
    "unique_value_name",
]


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a value that can never change, or None.

    An initializer that is also a graph input is a default that a caller may override: no constant.

    Args:
        value: A value of the main graph, or None for an absent optional input.
    """
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def float32_array(value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    """Return the numbers of a float32 constant (read-only), or None where it is no such thing."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    array: npt.NDArray[np.float32] = tensor.numpy()
    return array


def is_private(value: ir.Value) -> bool:
    """Whether exactly one input of one node uses the value and no graph returns it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def replace_array(value: ir.Value, array: npt.NDArray[np.generic]) -> None:
    """Give an initializer new numbers; the old tensor object stays as it is, since copies may share it."""
    # Not np.ascontiguousarray, which makes a vector of a scalar.
    value.const_value = ir.Tensor(np.asarray(array, order="C"), name=value.name)
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(value.const_value.dtype)


def add_initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Register a new constant and return its value.

    Args:
        graph: The main graph.
        name: A name that no value has; see `unique_value_name`.
        array: The numbers, any shape and dtype.
    """
    value = ir.Value(name=name)
    replace_array(value, array)
    graph.register_initializer(value)
    return value


def unique_value_name(graph: ir.Graph, wish: str) -> str:
    """Return `wish`, or `wish_1`, `wish_2` ... where a value, in subgraphs too, has that name."""
    taken = {value.name for inner in all_graphs(graph) for value in _values(inner)}
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name


def all_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Yield the graph and every subgraph in it, however deep."""
    yield graph
    yield from graph.subgraphs()


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
