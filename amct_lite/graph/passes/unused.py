"""What nothing uses goes."""

import onnx_ir as ir

__all__ = ["remove_unused"]


def remove_unused(model: ir.Model) -> bool:
    """Remove the operators and initializers of the main graph that no output depends on.

    Precondition: the graph is topologically sorted.
    Postcondition: each operator has an output that is used or returned; each initializer is used, returned
    or a graph input. Subgraphs are not entered; what they capture counts as used.

    Args:
        model: The model, changed in place.

    Returns:
        Whether something was removed.
    """
    graph = model.graph
    changed = False
    for node in reversed(list(graph)):
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        _release_captured(node)
        graph.remove(node, safe=True)
        changed = True
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]
            changed = True
    return changed


def _release_captured(node: ir.Node) -> None:
    """Let go of the outer values that the bodies of a node capture, or they would count as used for ever."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            bodies = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies = list(attribute.as_graphs())
        else:
            continue
        for body in bodies:
            for inner in body.all_nodes():
                for index in range(len(inner.inputs)):
                    inner.replace_input_with(index, None)
