"""From packed codes and levels to a weight: each code looked up, the rows scaled, the stored weight's shape."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.export.editor import GraphEditor
from amct_lite.export.joined_vectors import row_scales, vector_table
from amct_lite.export.packed_codes import (
    LOOKUP_AXIS,
    fits_rows,
    group_shape,
    insert_codes,
    insert_numbers,
    repeated,
    take_first,
    with_shape,
    without_filler,
)
from amct_lite.export.stored_scales import float_scales
from amct_lite.quantize.weight_rows import WeightLayout

__all__ = ["looked_up_in_rows", "placed_vectors", "placed_weight", "scaled_vectors", "stored_levels", "tables_fit_rows"]

# A row has a table of its own where that has no more levels than the row has weights, times this: what it costs to
# scale is less than what one more operator on the whole weight costs.
LARGEST_TABLE = 4
LARGEST_VECTOR_TABLE = 1 / 2


def stored_levels(editor: GraphEditor, codebook: Codebook, name: str) -> ir.Value:
    """Add the levels of all tables of single weights as an initializer.

    Returns:
        Of the type that they are stored in, shape (tables, levels).
    """
    return editor.constant(f"{name}.levels", codebook.tables[:, :, 0].astype(codebook.level_type.value))


def placed_weight(
    editor: GraphEditor,
    before: ir.Node,
    codebook: Codebook,
    layout: WeightLayout,
    levels: ir.Value,
    scales: npt.NDArray[Any] | None,
    name: str,
) -> ir.Value:
    """Insert packed codes of single weights and what makes the stored weight of them.

    Args:
        editor: The graph.
        before: Where the operators go.
        codebook: The weight, rows as in `layout`.
        layout: How the stored weight is laid out.
        levels: As from `stored_levels`, of any type where there are no scales, else float32.
        scales: Shape (rows,), in the type that they are stored in; None for values without scales.
        name: Begins the names of what is added.

    Returns:
        Of the levels' type and of the stored weight's shape.
    """
    if codebook.tables.shape[0] > 1 and scales is None and tables_fit_rows(codebook, layout):
        shape = group_shape(codebook.codes.shape[0], codebook.code_bits)
        numbers = insert_numbers(editor, before, codebook.table_of_row.reshape(shape[:-1]), f"{name}.tables")
        table = editor.insert(before, "Gather", [levels, numbers], f"{name}.tables.levels")
        return looked_up_in_rows(editor, before, codebook, layout, table, name)
    # Codes of single weights are packed in the order of the stored weight: the graph need not transpose.
    codes = codebook.codes.reshape(layout.split_shape).transpose(layout.permutation)
    tables = codebook.table_of_row.reshape(layout.row_shape).transpose(layout.permutation)
    if codebook.tables.shape[0] == 1:
        value = _looked_up(editor, before, codebook, codes, levels, name)
    else:
        index = _index(editor, before, codebook, codes, tables, name)
        index = with_shape(editor, before, index, (-1,), f"{name}.index")
        levels = with_shape(editor, before, levels, (-1,), f"{name}.levels")
        value = editor.insert(before, "GatherElements", [levels, index], f"{name}.values")
    if scales is not None:
        shaped = scales.reshape(layout.row_shape).transpose(layout.permutation)
        value = _scaled(editor, before, value, codes.shape, shaped, name)
        if codes.shape == layout.weight_shape:
            return value
    return with_shape(editor, before, value, layout.weight_shape, name)


def tables_fit_rows(codebook: Codebook, layout: WeightLayout) -> bool:
    """Whether each row can be looked up in a table of its own, whose levels its scale is in already.

    That spares the weight a multiplication, and several tables their offsets.
    """
    # Vectors have their scales multiplied in fewer bytes: see `scaled_vectors`.
    largest = LARGEST_TABLE if codebook.vector_size == 1 else LARGEST_VECTOR_TABLE
    small = codebook.num_levels <= largest * layout.columns
    whole = codebook.num_rows == codebook.vector_size * len(codebook.codes)
    return small and whole and layout.keeps_order and fits_rows(len(codebook.codes), codebook.code_bits)


def looked_up_in_rows(
    editor: GraphEditor, before: ir.Node, codebook: Codebook, layout: WeightLayout, table: ir.Value, name: str
) -> ir.Value:
    """Insert packed codes and what makes the stored weight of them and of a table for each row.

    Args:
        editor: The graph.
        before: Where the operators go.
        codebook: The weight, rows as in `layout`, for which `tables_fit_rows`.
        layout: How the stored weight is laid out.
        table: Shape (1, vector_size * group_codes, 1, rows of codes / group_codes, levels).
        name: Begins the names of what is added.

    Returns:
        Of the table's type and of the stored weight's shape.
    """
    bits, size = codebook.code_bits, codebook.vector_size
    index = insert_codes(editor, before, codebook.codes, bits, name, columns=layout.columns, copies=size)
    value = editor.insert(before, "GatherElements", [table, index], f"{name}.values", {"axis": LOOKUP_AXIS})
    return with_shape(editor, before, value, layout.weight_shape, name)


def _looked_up(
    editor: GraphEditor,
    before: ir.Node,
    codebook: Codebook,
    codes: npt.NDArray[np.uint8],
    levels: ir.Value,
    name: str,
) -> ir.Value:
    """What codes stand for in the one table, in their order; the value's own shape is any that holds so many."""
    bits = codebook.code_bits
    # The codes of a group are looked up in rows of their own, which are all alike.
    shape = (*group_shape(0, bits)[:2], 1, 1, codebook.num_levels)
    table = repeated(editor, before, levels, shape, f"{name}.table")
    index = insert_codes(editor, before, codes, bits, name)
    value = editor.insert(before, "GatherElements", [table, index], f"{name}.values", {"axis": LOOKUP_AXIS})
    return without_filler(editor, before, value, codes.size, bits, f"{name}.values")


def scaled_vectors(
    editor: GraphEditor, before: ir.Node, codebook: Codebook, layout: WeightLayout, name: str
) -> ir.Value:
    """Insert packed codes of vectors, and what makes the stored weight of them and of one scale or one for each row.

    The levels are looked up, and put in their place, in the type that they are stored in: it takes fewer bytes.

    Args:
        editor: The graph.
        before: Where the operators go.
        codebook: The weight, rows as in `layout`.
        layout: How the stored weight is laid out.
        name: Begins the names of what is added.

    Returns:
        float32 of the stored weight's shape.
    """
    shape = layout.stored(layout.split_shape)
    value = placed_vectors(editor, before, codebook, layout, shape, name)
    if codebook.level_type is not LevelType.FLOAT32:
        value = editor.insert(before, "Cast", [value], f"{name}.float", {"to": int(ir.DataType.FLOAT)})
    if codebook.scales.size > 1:
        scales = row_scales(editor, codebook, layout.stored(layout.row_shape))
    else:
        scales = editor.constant(f"{name}.scale", codebook.scales.reshape(()))
    value = editor.insert(before, "Mul", [value, scales], name)
    return value if shape == layout.weight_shape else with_shape(editor, before, value, layout.weight_shape, name)


def placed_vectors(
    editor: GraphEditor, before: ir.Node, codebook: Codebook, layout: WeightLayout, shape: tuple[int, ...], name: str
) -> ir.Value:
    """Insert packed codes of vectors and what puts the levels in the order of the stored weight.

    Args:
        editor: The graph.
        before: Where the operators go.
        codebook: The weight, rows as in `layout`.
        layout: How the stored weight is laid out.
        shape: Of as many numbers as the weight has.
        name: Begins the names of what is added.

    Returns:
        Of the type in which the levels are stored, and of that shape.
    """
    if len(codebook.tables) == 1:
        value = _components(editor, before, codebook, name)
    else:
        value = _components_of_tables(editor, before, codebook, name)
    padded = (codebook.vector_size * len(codebook.codes), codebook.num_columns)
    if padded[0] > codebook.num_rows:
        value = with_shape(editor, before, value, padded, f"{name}.padded")
        value = take_first(editor, before, value, codebook.num_rows, 0, f"{name}.unpadded")
    if layout.keeps_order:
        return with_shape(editor, before, value, shape, f"{name}.shaped")
    value = with_shape(editor, before, value, layout.split_shape, f"{name}.rows")
    value = editor.insert(before, "Transpose", [value], f"{name}.moved", {"perm": list(layout.permutation)})
    return value if shape == layout.stored(layout.split_shape) else with_shape(editor, before, value, shape, name)


def _components(editor: GraphEditor, before: ir.Node, codebook: Codebook, name: str) -> ir.Value:
    """What the codes stand for, component after component; of any shape."""
    bits, size, count = codebook.code_bits, codebook.vector_size, codebook.codes.size
    table = vector_table(editor, codebook)
    index = insert_codes(editor, before, codebook.codes, bits, name, copies=size)
    value = editor.insert(before, "GatherElements", [table, index], f"{name}.values", {"axis": LOOKUP_AXIS})
    group_codes = group_shape(0, bits)[1]
    if count % group_codes == 0:
        return value
    filled = count + -count % group_codes
    value = with_shape(editor, before, value, (size, filled), f"{name}.filled")
    return take_first(editor, before, value, count, 1, f"{name}.unfilled")


def _components_of_tables(editor: GraphEditor, before: ir.Node, codebook: Codebook, name: str) -> ir.Value:
    """The same where rows of codes have tables of their own."""
    index = _index(editor, before, codebook, codebook.codes, codebook.table_of_row[:, None], name)
    size = codebook.vector_size
    index = with_shape(editor, before, index, (1, codebook.codes.size), f"{name}.index")
    index = repeated(editor, before, index, (size, codebook.codes.size), f"{name}.copies")
    levels = np.moveaxis(codebook.tables, 2, 0).reshape(size, -1).astype(codebook.level_type.value)
    stored = editor.constant(f"{name}.levels", levels)
    return editor.insert(before, "GatherElements", [stored, index], f"{name}.values", {"axis": 1})


def _index(
    editor: GraphEditor,
    before: ir.Node,
    codebook: Codebook,
    codes: npt.NDArray[np.uint8],
    table_of_row: npt.NDArray[np.intp],
    name: str,
) -> ir.Value:
    """Where codes are among the levels of several tables: int32, of the codes' shape."""
    index = insert_codes(editor, before, codes, codebook.code_bits, name)
    index = without_filler(editor, before, index, codes.size, codebook.code_bits, f"{name}.code")
    index = with_shape(editor, before, index, codes.shape, f"{name}.code")
    numbers = insert_numbers(editor, before, table_of_row, f"{name}.tables")
    levels = editor.constant(f"{name}.num_levels", np.int32(codebook.num_levels))
    offsets = editor.insert(before, "Mul", [numbers, levels], f"{name}.offsets")
    return editor.insert(before, "Add", [index, offsets], f"{name}.index")


def _scaled(
    editor: GraphEditor,
    before: ir.Node,
    value: ir.Value,
    shape: tuple[int, ...],
    scales: npt.NDArray[Any],
    name: str,
) -> ir.Value:
    value = with_shape(editor, before, value, shape, f"{name}.unscaled")
    return editor.insert(before, "Mul", [value, float_scales(editor, before, scales, name)], name)
