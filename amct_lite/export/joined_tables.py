"""The tables of the rows of many weights, scaled levels each, made in one go for all weights that are alike.

What ONNX Runtime takes to fold a node hardly depends on how little the node does: a network of fifty weights would pay
for two hundred nodes on a few numbers each. So the levels and the scales of all weights are an initializer each, and a
Split hands every weight its own rows.
"""

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.codebook import Codebook
from amct_lite.export.editor import GraphEditor
from amct_lite.export.packed_codes import group_shape, insert_numbers, split_along, with_shape
from amct_lite.export.stored_scales import float_scales

__all__ = ["row_tables"]

_FLOAT = int(ir.DataType.FLOAT)

# Tables are made with the axes component, code of a group, group of rows, level; a one in front.
_LEVELS_AXIS, _ROW_AXIS = 2, 3


class _Kind(NamedTuple):
    """What weights must have in common."""

    level_type: str
    num_levels: int
    vector_size: int
    code_bits: int
    scale_type: str


class _Part(NamedTuple):
    """A weight's tables as they are stored, the power of two in front of its scales, and what looks rows up in them."""

    levels: npt.NDArray[Any]
    exponent: int
    scales: npt.NDArray[Any]
    table_of_row: npt.NDArray[np.intp]
    value: ir.Value


def row_tables(editor: GraphEditor, codebook: Codebook) -> ir.Value:
    """Ask for the scaled levels of each row of a codebook with scales of its own for each row.

    Args:
        editor: The graph; its `finish` inserts what makes them.
        codebook: One whose rows of codes fill up groups.

    Returns:
        float32, shape (1, vector_size * group_codes, 1, rows of codes / group_codes, levels): known once the editor
        has finished.
    """
    joined: _JoinedTables = editor.at_end("row tables", _JoinedTables)
    return joined.add(codebook)


class _JoinedTables:
    """Collects the tables of a graph."""

    def __init__(self) -> None:
        self._parts: defaultdict[_Kind, list[_Part]] = defaultdict(list)

    def add(self, codebook: Codebook) -> ir.Value:
        """The value that one weight's tables will be."""
        stored_as, size = codebook.scale_format, codebook.vector_size
        _, group_codes, _, groups, _ = group_shape(len(codebook.codes), codebook.code_bits)
        part = _Part(
            np.moveaxis(codebook.tables, 2, 0)[None].astype(codebook.level_type.value),
            stored_as.exponent,
            stored_as.stored(codebook.scales).reshape(1, size, group_codes, groups, 1),
            codebook.table_of_row.reshape(group_codes, groups),
            ir.Value(),
        )
        kind = _Kind(codebook.level_type.value, codebook.num_levels, size, codebook.code_bits, stored_as.dtype.name)
        self._parts[kind].append(part)
        return part.value

    def __call__(self, editor: GraphEditor) -> None:
        """Insert what makes all tables."""
        for kind, parts in self._parts.items():
            _insert(editor, kind, parts)


def _insert(editor: GraphEditor, kind: _Kind, parts: list[_Part]) -> None:
    before, name = editor.first, editor.prefix("t")
    levels = editor.constant(f"{name}.levels", np.concatenate([part.levels for part in parts], _LEVELS_AXIS))
    if kind.level_type != "float32":
        levels = editor.insert(before, "Cast", [levels], f"{name}.levels.float", {"to": _FLOAT})
    if any(part.exponent for part in parts):
        powers = [np.full((part.levels.shape[_LEVELS_AXIS], 1), 2.0**part.exponent, np.float32) for part in parts]
        common = editor.constant(f"{name}.scale", np.concatenate(powers))
        levels = editor.insert(before, "Mul", [levels, common], f"{name}.levels.scaled")
    scales = np.concatenate([part.scales for part in parts], _ROW_AXIS)
    if kind.vector_size > 1 or sum(part.levels.shape[_LEVELS_AXIS] for part in parts) > 1:
        numbers = insert_numbers(editor, before, _numbers(parts), f"{name}.numbers")
        levels = editor.insert(before, "Gather", [levels, numbers], f"{name}.levels.rows", {"axis": _LEVELS_AXIS})
    table = editor.insert(before, "Mul", [levels, float_scales(editor, before, scales, name)], name)
    _, size, group_codes, groups, _ = scales.shape
    table = with_shape(editor, before, table, (1, size * group_codes, 1, groups, kind.num_levels), f"{name}.rows")
    counts = [part.scales.shape[_ROW_AXIS] for part in parts]
    split_along(editor, before, table, counts, [part.value for part in parts], name, _ROW_AXIS)


def _numbers(parts: list[_Part]) -> npt.NDArray[np.intp]:
    """Which of all tables each row of codes has, shape (codes of a group or 1, groups)."""
    first = np.cumsum([0, *(part.levels.shape[_LEVELS_AXIS] for part in parts[:-1])])
    numbers = np.concatenate([part.table_of_row + start for part, start in zip(parts, first, strict=True)], 1)
    # One number does for all codes of a group where all have the same.
    return numbers[:1] if (numbers == numbers[:1]).all() else numbers
