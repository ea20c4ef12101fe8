"""Which operators a node has taken in while the graph was normalised; kept in memory, through copies, in no file."""

import onnx_ir as ir

__all__ = ["names_of_origin", "remember_folded"]

_BEFORE, _AFTER = "amct_lite.folded_before", "amct_lite.folded_after"


def remember_folded(layer: ir.Node, norm: ir.Node, *, before: bool) -> None:
    """Note that a layer has taken in an operator next to it.

    Args:
        layer: The layer.
        norm: What is gone.
        before: Whether it stood in front of the layer.
    """
    name = str(norm.name)
    if before:
        layer.meta[_BEFORE] = (name, *layer.meta.get(_BEFORE, ()))
    else:
        layer.meta[_AFTER] = (*layer.meta.get(_AFTER, ()), name)


def names_of_origin(node: ir.Node) -> tuple[str, ...]:
    """The operators of the file that a node stands for, in their order; the last one made what the node makes."""
    return (*node.meta.get(_BEFORE, ()), str(node.name), *node.meta.get(_AFTER, ()))
