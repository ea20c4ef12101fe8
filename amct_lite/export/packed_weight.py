"""A codebook in front of a layer, in stock operators of opset 13: packed codes, levels, channel scales.

ONNX Runtime folds these operators when it loads a model: the file is small, and the loaded weight is a plain one.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.errors import ExportError
from amct_lite.export.editor import GraphEditor
from amct_lite.export.joined_tables import row_tables
from amct_lite.export.packed_lookup import (
    looked_up_in_rows,
    placed_vectors,
    placed_weight,
    scaled_vectors,
    stored_levels,
    tables_fit_rows,
)
from amct_lite.export.stored_scales import float_scales
from amct_lite.quantize.weight_rows import WeightLayout

__all__ = ["MakeWeight", "dense_weight", "int8_weight", "packed_weight"]

MakeWeight = Callable[[GraphEditor, ir.Node, Codebook, WeightLayout, str], ir.Value]
"""Adds a form of a codebook in front of a node and returns the weight."""

_FLOAT = int(ir.DataType.FLOAT)


def packed_weight(
    editor: GraphEditor, before: ir.Node, codebook: Codebook, layout: WeightLayout, name: str
) -> ir.Value:
    """Insert packed codes and the operators that decode them.

    Args:
        editor: The graph, opset 13 or newer.
        before: The node that the weight is for, or the first of several.
        codebook: The weight, rows as in `layout`.
        layout: How the stored weight is laid out.
        name: Begins the names of what is added.

    Returns:
        float32 of the stored weight's shape, bit-equal to `layout.from_rows(codebook.decode())`.

    Raises:
        ExportError: The codebook has not the rows and columns of the layer.
    """
    _check(codebook, layout)
    if codebook.scales.size > 1 and tables_fit_rows(codebook, layout):
        return looked_up_in_rows(editor, before, codebook, layout, row_tables(editor, codebook), name)
    if codebook.vector_size > 1:
        return scaled_vectors(editor, before, codebook, layout, name)
    levels = stored_levels(editor, codebook, name)
    if codebook.level_type is not LevelType.FLOAT32:
        levels = editor.insert(before, "Cast", [levels], f"{name}.levels.float", {"to": _FLOAT})
    scales = codebook.scale_format.stored(codebook.scales) if codebook.scales.size > 1 else None
    # Levels are fewer than weights. They take the one scale for all rows; or what scales of their own have in common,
    # a power of two, which changes no digit of the product.
    common = codebook.scales[0] if scales is None else np.float32(2.0**codebook.scale_format.exponent)
    if common != 1:
        scale = editor.constant(f"{name}.scale", np.asarray(common))
        levels = editor.insert(before, "Mul", [levels, scale], f"{name}.levels.scaled")
    return placed_weight(editor, before, codebook, layout, levels, scales, name)


def int8_weight(editor: GraphEditor, before: ir.Node, codebook: Codebook, layout: WeightLayout, name: str) -> ir.Value:
    """Insert packed codes that become int8 values under DequantizeLinear, for runtimes with integer kernels.

    Codes of 8 bits are stored as the int8 values themselves.

    Args:
        editor: The graph, opset 13 or newer.
        before: The node that the weight is for, or the first of several.
        codebook: The weight, with INT8 levels, rows as in `layout`.
        layout: How the stored weight is laid out.
        name: Begins the names of what is added.

    Returns:
        float32 of the stored weight's shape, bit-equal to `layout.from_rows(codebook.decode())`.

    Raises:
        ExportError: The codebook has not the rows and columns of the layer, its levels are not INT8, or its scales
            run along no axis of the stored weight.
    """
    _check(codebook, layout)
    if codebook.level_type is not LevelType.INT8:
        raise ExportError(f"Levels of type {codebook.level_type} are no int8 weights.", layer=layout.layer)
    axis = layout.scale_axis
    if codebook.scales.size > 1 and axis is None:
        raise ExportError(
            "DequantizeLinear takes scales along one axis, and the output channels of a grouped transposed "
            "convolution run along none.",
            layer=layout.layer,
            remedy="Give the layer one scale, or store it packed.",
        )
    if codebook.code_bits == 8 * codebook.vector_size:
        values = editor.constant(f"{name}.values", layout.from_rows(codebook.levels_of_weights().astype(np.int8)))
    elif codebook.vector_size > 1:
        values = placed_vectors(editor, before, codebook, layout, layout.weight_shape, f"{name}.values")
    else:
        levels = stored_levels(editor, codebook, name)
        values = placed_weight(editor, before, codebook, layout, levels, None, f"{name}.values")
    scale, shape = _scale_operand(editor, before, codebook, name)
    zero_point = editor.constant(f"{name}.zero_point", np.zeros(shape, np.int8))
    attributes = {"axis": axis} if shape else {}
    return editor.insert(before, "DequantizeLinear", [values, scale, zero_point], name, attributes)


def _scale_operand(
    editor: GraphEditor, before: ir.Node, codebook: Codebook, name: str
) -> tuple[ir.Value, tuple[int, ...]]:
    """(the float32 scales that DequantizeLinear takes, their shape); they are folded from the few bits stored."""
    stored_as = codebook.scale_format
    if codebook.scales.size == 1 or stored_as.dtype == np.float32:
        scales = codebook.scales if codebook.scales.size > 1 else codebook.scales.reshape(())
        return editor.constant(f"{name}.scale", scales), scales.shape
    scale = float_scales(editor, before, stored_as.stored(codebook.scales), name)
    if stored_as.exponent:
        common = editor.constant(f"{name}.scale", np.float32(2.0**stored_as.exponent))
        scale = editor.insert(before, "Mul", [scale, common], f"{name}.scales.scaled")
    return scale, codebook.scales.shape


def dense_weight(
    editor: GraphEditor, _before: ir.Node, codebook: Codebook, layout: WeightLayout, name: str
) -> ir.Value:
    """Add the decoded weight as a plain float32 initializer; arguments as for `packed_weight`."""
    _check(codebook, layout)
    return editor.constant(name, layout.from_rows(codebook.decode()))


def _check(codebook: Codebook, layout: WeightLayout) -> None:
    found = (codebook.num_rows, codebook.num_columns)
    if found != (layout.rows, layout.columns):
        raise ExportError(
            f"The codebook has {found[0]} rows and {found[1]} columns, the layer {layout.rows} and {layout.columns}.",
            layer=layout.layer,
        )
