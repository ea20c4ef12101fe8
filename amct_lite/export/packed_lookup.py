"""From packed codes and levels to a weight: each code looked up, the rows scaled, the stored weight's shape."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.codebook import Codebook
from amct_lite.export.editor import GraphEditor
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

__all__ = ["looked_up_in_rows", "placed_weight", "stored_levels", "tables_fit_rows"]

# A row has a table of its own where that has no more levels than the row has weights, times this: what it costs to
# scale is less than what one more operator on the whole weight costs.
LARGEST_TABLE = 4


def stored_levels(editor: GraphEditor, codebook: Codebook, name: str) -> ir.Value:
    """Add the levels of all tables as an initializer.

    Returns:
        Of the type that they are stored in, shape (tables, levels), or (vector_size, tables * levels) of vectors.
    """
    levels = codebook.tables.astype(codebook.level_type.value)
    single = codebook.vector_size == 1
    components = levels[:, :, 0] if single else np.moveaxis(levels, 2, 0).reshape(codebook.vector_size, -1)
    return editor.constant(f"{name}.levels", components)


def placed_weight(
    editor: GraphEditor,
    before: ir.Node,
    codebook: Codebook,
    layout: WeightLayout,
    levels: ir.Value,
    scales: npt.NDArray[Any] | None,
    name: str,
) -> ir.Value:
    """Insert packed codes and what makes the stored weight of them.

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
    if codebook.vector_size > 1:
        return _placed_vectors(editor, before, codebook, layout, levels, scales, name)
    if codebook.tables.shape[0] > 1 and scales is None and tables_fit_rows(codebook, layout):
        shape = group_shape(codebook.codes.shape[0], codebook.code_bits)
        numbers = insert_numbers(editor, before, codebook.table_of_row.reshape(shape[:-1]), f"{name}.tables")
        table = editor.insert(before, "Gather", [levels, numbers], f"{name}.tables.levels")
        return looked_up_in_rows(editor, before, codebook, layout, [table], name)
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
    small = codebook.num_levels <= LARGEST_TABLE * layout.columns
    return small and layout.keeps_order and fits_rows(len(codebook.codes), codebook.code_bits)


def looked_up_in_rows(
    editor: GraphEditor,
    before: ir.Node,
    codebook: Codebook,
    layout: WeightLayout,
    tables: Sequence[ir.Value],
    name: str,
) -> ir.Value:
    """Insert packed codes and what makes the stored weight of them and of a table for each row.

    Args:
        editor: The graph.
        before: Where the operators go.
        codebook: The weight, rows as in `layout`, for which `tables_fit_rows`.
        layout: How the stored weight is laid out.
        tables: For each component of a vector, shape (1, group_codes, 1, rows of codes / group_codes, levels).
        name: Begins the names of what is added.

    Returns:
        Of the tables' type and of the stored weight's shape.
    """
    index = insert_codes(editor, before, codebook.codes, codebook.code_bits, name, columns=layout.columns)
    value = _components(editor, before, tables, index, f"{name}.values")
    value = _without_filler_rows(editor, before, value, codebook, f"{name}.unpadded")
    return with_shape(editor, before, value, layout.weight_shape, name)


def _components(
    editor: GraphEditor, before: ir.Node, tables: Sequence[ir.Value], index: ir.Value, name: str
) -> ir.Value:
    """Each code looked up in each of the tables: block after block."""
    blocks = [editor.insert(before, "GatherElements", [table, index], name, {"axis": LOOKUP_AXIS}) for table in tables]
    return blocks[0] if len(blocks) == 1 else editor.insert(before, "Concat", blocks, f"{name}.all", {"axis": 0})


def _without_filler_rows(
    editor: GraphEditor, before: ir.Node, value: ir.Value, codebook: Codebook, name: str
) -> ir.Value:
    """The rows of the matrix, of any shape where these are all."""
    rows = codebook.vector_size * len(codebook.codes)
    if rows == codebook.num_rows:
        return value
    value = with_shape(editor, before, value, (rows, codebook.num_columns), f"{name}.rows")
    return take_first(editor, before, value, codebook.num_rows, 0, name)


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


def _placed_vectors(
    editor: GraphEditor,
    before: ir.Node,
    codebook: Codebook,
    layout: WeightLayout,
    levels: ir.Value,
    scales: npt.NDArray[Any] | None,
    name: str,
) -> ir.Value:
    """The same for codes that stand for several rows: unpacked as rows, then transposed where need be."""
    index = _index(editor, before, codebook, codebook.codes, codebook.table_of_row[:, None], name)
    # One long row of codes, and each component's levels as a row to look them up in.
    index = with_shape(editor, before, index, (1, 1, 1, 1, codebook.codes.size), f"{name}.index")
    size = codebook.vector_size
    levels = with_shape(editor, before, levels, (size, 1, 1, 1, codebook.tables.size // size), f"{name}.levels")
    tables = [ir.Value() for _ in range(size)]
    editor.split(before, levels, editor.constant(f"{name}.ones", np.ones(size, np.int64)), tables, f"{name}.split", 0)
    value = _components(editor, before, tables, index, f"{name}.values")
    value = _without_filler_rows(editor, before, value, codebook, f"{name}.unpadded")
    if scales is not None:
        value = _scaled(editor, before, value, layout.split_shape, scales.reshape(layout.row_shape), name)
    if not layout.keeps_order:
        if scales is None:
            value = with_shape(editor, before, value, layout.split_shape, f"{name}.rows")
        value = editor.insert(before, "Transpose", [value], name, {"perm": list(layout.permutation)})
        if layout.stored(layout.split_shape) == layout.weight_shape:
            return value
    elif scales is not None and layout.split_shape == layout.weight_shape:
        return value
    return with_shape(editor, before, value, layout.weight_shape, name)


def _index(
    editor: GraphEditor,
    before: ir.Node,
    codebook: Codebook,
    codes: npt.NDArray[np.uint8],
    table_of_row: npt.NDArray[np.intp],
    name: str,
) -> ir.Value:
    """Where codes are among the levels of all tables, int32; of one table of any shape, else of that of the codes."""
    index = insert_codes(editor, before, codes, codebook.code_bits, name)
    index = without_filler(editor, before, index, codes.size, codebook.code_bits, f"{name}.code")
    if codebook.tables.shape[0] == 1:
        return index
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
