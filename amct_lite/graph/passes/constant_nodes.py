"""Constants become initializers."""

import numpy as np
import onnx_ir as ir

__all__ = ["lift_constants"]


def lift_constants(model: ir.Model) -> bool:
    """Replace the Constant operators of the main graph by initializers of the same name.

    Sparse constants, and constants that the graph returns, stay. Subgraphs are not entered: an initializer
    inside a body is something that few runtimes expect.

    Precondition: every value has a name.
    Postcondition: no Constant of the main graph feeds a layer, unless it is sparse or a graph output.

    Args:
        model: The model, changed in place.

    Returns:
        Whether a constant was lifted.
    """
    graph = model.graph
    changed = False
    for node in list(graph):
        if node.op_type != "Constant" or node.domain != "":
            continue
        output = node.outputs[0]
        tensor = _tensor(node)
        if tensor is None or output.is_graph_output():
            continue
        value = ir.Value(
            name=output.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        output.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        tensor.name = value.name
        graph.register_initializer(value)
        changed = True
    return changed


def _tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The value of a Constant in whichever attribute it is, or None for a sparse one."""
    attributes = node.attributes
    if "value" in attributes:
        return attributes["value"].as_tensor()
    if "value_int" in attributes:
        return ir.Tensor(np.array(attributes["value_int"].as_int(), dtype=np.int64))
    if "value_ints" in attributes:
        return ir.Tensor(np.array(attributes["value_ints"].as_ints(), dtype=np.int64))
    if "value_float" in attributes:
        return ir.Tensor(np.array(attributes["value_float"].as_float(), dtype=np.float32))
    if "value_floats" in attributes:
        return ir.Tensor(np.array(attributes["value_floats"].as_floats(), dtype=np.float32))
    if "value_string" in attributes:
        return ir.StringTensor([attributes["value_string"].as_string().encode()], shape=ir.Shape([]))
    if "value_strings" in attributes:
        strings = [text.encode() for text in attributes["value_strings"].as_strings()]
        return ir.StringTensor(strings, shape=ir.Shape([len(strings)]))
    return None
