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
from amct_lite.export.packed_codes import group_shape, insert_numbers
from amct_lite.export.stored_scales import float_scales

__all__ = ["row_tables"]

_FLOAT = int(ir.DataType.FLOAT)
_ROW_AXIS = 3


class _Kind(NamedTuple):
    """What weights must have in common."""

    level_type: str
    num_levels: int
    code_bits: int
    scale_type: str


class _Part(NamedTuple):
    """A weight's tables as they are stored, the power of two in front of its scales, and what looks rows up in them."""

    levels: npt.NDArray[Any]
    exponent: int
    scales: npt.NDArray[Any]
    table_of_row: npt.NDArray[np.intp]
    value: ir.Value


def row_tables(editor: GraphEditor, codebook: Codebook) -> list[ir.Value]:
    """Ask for the scaled levels of each row of a codebook with scales of its own for each row.

    Args:
        editor: The graph; its `finish` inserts what makes them.
        codebook: One whose rows of codes fill up groups.

    Returns:
        For each component of a vector float32, shape (1, group_codes, 1, rows of codes / group_codes, levels): known
        once the editor has finished.
    """
    joined: _JoinedTables = editor.at_end("row tables", _JoinedTables)
    return joined.add(codebook)


class _JoinedTables:
    """Collects the tables of a graph."""

    def __init__(self) -> None:
        self._parts: defaultdict[_Kind, list[_Part]] = defaultdict(list)

    def add(self, codebook: Codebook) -> list[ir.Value]:
        """The values that one weight's tables will be, one for each component."""
        stored_as, bits, size = codebook.scale_format, codebook.code_bits, codebook.vector_size
        shape = group_shape(len(codebook.codes), bits)
        # A row that fills up the last component is cut off again.
        scales = np.pad(stored_as.stored(codebook.scales), (0, -codebook.num_rows % size), mode="edge")
        kind = _Kind(codebook.level_type.value, codebook.num_levels, bits, stored_as.dtype.name)
        parts = [
            _Part(
                codebook.tables[:, :, component].astype(codebook.level_type.value),
                stored_as.exponent,
                own.reshape(shape),
                codebook.table_of_row.reshape(shape[:-1]),
                ir.Value(),
            )
            for component, own in enumerate(np.split(scales, size))
        ]
        self._parts[kind].extend(parts)
        return [part.value for part in parts]

    def __call__(self, editor: GraphEditor) -> None:
        """Insert what makes all tables."""
        for kind, parts in self._parts.items():
            _insert(editor, kind, parts)


def _insert(editor: GraphEditor, kind: _Kind, parts: list[_Part]) -> None:
    before, name = editor.first, editor.prefix("t")
    levels = editor.constant(f"{name}.levels", np.concatenate([part.levels for part in parts]))
    if kind.level_type != "float32":
        levels = editor.insert(before, "Cast", [levels], f"{name}.levels.float", {"to": _FLOAT})
    if any(part.exponent for part in parts):
        powers = [np.full((len(part.levels), 1), 2.0**part.exponent, np.float32) for part in parts]
        common = editor.constant(f"{name}.scale", np.concatenate(powers))
        levels = editor.insert(before, "Mul", [levels, common], f"{name}.levels.scaled")
    scales = float_scales(editor, before, np.concatenate([part.scales for part in parts], _ROW_AXIS), name)
    if len(parts) > 1 or len(parts[0].levels) > 1:
        numbers = insert_numbers(editor, before, _numbers(parts), f"{name}.numbers")
        levels = editor.insert(before, "Gather", [levels, numbers], f"{name}.levels.rows")
    table = editor.insert(before, "Mul", [levels, scales], name)
    if len(parts) == 1:
        ir.convenience.replace_all_uses_with(parts[0].value, table)
        return
    counts = np.array([part.scales.shape[_ROW_AXIS] for part in parts], np.int64)
    sizes = editor.constant(f"{name}.rows", counts)
    editor.split(before, table, sizes, [part.value for part in parts], f"{name}.split", _ROW_AXIS)


def _numbers(parts: list[_Part]) -> npt.NDArray[np.intp]:
    """Which of all tables each row has."""
    first = np.cumsum([0, *(len(part.levels) for part in parts[:-1])])
    numbers = np.concatenate([part.table_of_row + start for part, start in zip(parts, first, strict=True)], _ROW_AXIS)
    # One number does for all codes of a group where all have the same.
    return numbers[0, 0, 0] if (numbers == numbers[:, :1]).all() else numbers
