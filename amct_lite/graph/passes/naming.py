"""Every operator gets a name of its own."""

import onnx

__all__ = ["name_nodes"]


def name_nodes(graph: onnx.GraphProto) -> bool:
    """Name unnamed operators `{op_type}_{index}` and tell doubly named ones apart by a suffix.

    The first operator of a name keeps it. It works on the protobuf, since onnx_ir makes up names of another
    pattern on reading. Tensors keep their names: reading has checked that each is defined once.

    Precondition: none.
    Postcondition: every operator of the main graph has a non-empty name that no other has; the names depend
    on the graph alone. Subgraphs are not entered.

    Args:
        graph: The main graph, changed in place; `index` is an operator's position in it.

    Returns:
        Whether a name was changed.
    """
    given = {node.name for node in graph.node if node.name}
    used: set[str] = set()
    changed = False
    for index, node in enumerate(graph.node):
        if node.name and node.name not in used:
            used.add(node.name)
            continue
        # A made-up name must avoid the names that later operators were given, too.
        wish = node.name or f"{node.op_type}_{index}"
        name, number = wish, 0
        while name in used or name in given:
            number += 1
            name = f"{wish}_{number}"
        node.name = name
        used.add(name)
        changed = True
    return changed
