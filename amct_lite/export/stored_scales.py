"""The scales of rows inside a graph: from the few bits that are stored to float32."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.export.editor import GraphEditor

__all__ = ["float_scales"]

_FLOAT, _INT32 = int(ir.DataType.FLOAT), int(ir.DataType.INT32)


def float_scales(editor: GraphEditor, before: ir.Node, stored: npt.NDArray[Any], name: str) -> ir.Value:
    """Insert scales, as they are stored, and what makes float32 of them.

    Args:
        editor: The graph.
        before: Where the operators go.
        stored: As from `ScaleFormat.stored`, of any shape.
        name: Begins the names of what is added.

    Returns:
        The scales, without the power of two that they have in common.
    """
    scales = editor.constant(f"{name}.scales", stored)
    if stored.dtype == np.float32:
        return scales
    if stored.dtype != np.uint8:
        return editor.insert(before, "Cast", [scales], f"{name}.scales.float", {"to": _FLOAT})
    index = editor.insert(before, "Cast", [scales], f"{name}.scales.index", {"to": _INT32})
    return editor.insert(before, "Gather", [_scale_table(editor), index], f"{name}.scales.float")


def _scale_table(editor: GraphEditor) -> ir.Value:
    """What bytes stand for as scales; all layers share it, and it is computed, as `scale_table` is."""

    def make() -> ir.Value:
        first, name = editor.first, "packed.scale_table"
        ends = [editor.constant(f"packed.scale_{end}", np.float32(end)) for end in (0, 1, 1 / 256)]
        roots = editor.insert(first, "Range", ends, name)
        squares = editor.insert(first, "Mul", [roots, roots], name)
        return editor.insert(first, "Mul", [squares, squares], name)

    return editor.shared("scale table", make)
