"""Levels of vectors and scales of rows of many weights, made in one go for all weights that are alike.

As `joined_tables` does; for tables of so many levels that a table for each row would cost more than it spares.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.codebook import Codebook
from amct_lite.export.editor import GraphEditor
from amct_lite.export.packed_codes import group_shape, repeated, split_along, with_shape
from amct_lite.export.stored_scales import float_scales

__all__ = ["row_scales", "vector_table"]


class _Part(NamedTuple):
    stored: npt.NDArray[Any]
    value: ir.Value


class _Levels:
    """The tables of a graph whose codes are alike."""

    def __init__(self, code_bits: int) -> None:
        self._bits = code_bits
        self.parts: list[_Part] = []

    def __call__(self, editor: GraphEditor) -> None:
        """Insert what makes all tables."""
        before, name = editor.first, editor.prefix("t")
        stored = np.stack([part.stored for part in self.parts])
        levels = editor.constant(f"{name}.levels", stored[:, :, None, None, None])
        count, size, num_levels = stored.shape
        group_codes = group_shape(0, self._bits)[1]
        if group_codes > 1:
            shape = (count, size, group_codes, 1, 1, num_levels)
            levels = repeated(editor, before, levels, shape, f"{name}.repeated")
        levels = with_shape(editor, before, levels, (count, size * group_codes, 1, 1, num_levels), f"{name}.rows")
        split_along(editor, before, levels, [1] * count, [part.value for part in self.parts], name, 0)


class _Scales:
    """The scales of a graph that run along the same axis of the same type under the same power of two."""

    def __init__(self, exponent: int) -> None:
        self._exponent = exponent
        self.parts: list[_Part] = []

    def __call__(self, editor: GraphEditor) -> None:
        """Insert what makes all scales."""
        before, name = editor.first, editor.prefix("t")
        axis = _axis(self.parts[0].stored.shape)
        scales = float_scales(editor, before, np.concatenate([part.stored for part in self.parts], axis), name)
        if self._exponent:
            common = editor.constant(f"{name}.scale", np.float32(2.0**self._exponent))
            scales = editor.insert(before, "Mul", [scales, common], f"{name}.scales.scaled")
        counts = [part.stored.shape[axis] for part in self.parts]
        split_along(editor, before, scales, counts, [part.value for part in self.parts], name, axis)


def vector_table(editor: GraphEditor, codebook: Codebook) -> ir.Value:
    """Ask for the table of a codebook of vectors that has but one.

    Args:
        editor: The graph; its `finish` inserts what makes it.
        codebook: The codebook.

    Returns:
        Of the type in which levels are stored, shape (1, vector_size * group_codes, 1, 1, levels): known once the
        editor has finished.
    """
    levels = codebook.tables[0].T.astype(codebook.level_type.value)
    bits = codebook.code_bits
    joined: _Levels = editor.at_end(f"vectors {levels.dtype} {levels.shape} {bits}", lambda: _Levels(bits))
    return _added(joined.parts, levels)


def row_scales(editor: GraphEditor, codebook: Codebook, shape: tuple[int, ...]) -> ir.Value:
    """Ask for the scales of a codebook that has one for each row.

    Args:
        editor: The graph; its `finish` inserts what makes them.
        codebook: The codebook.
        shape: Of as many numbers, in the order of the scales.

    Returns:
        float32 of that shape: known once the editor has finished.
    """
    stored_as = codebook.scale_format
    stored, exponent = stored_as.stored(codebook.scales).reshape(shape), stored_as.exponent
    others = shape[: _axis(shape)], shape[_axis(shape) + 1 :]
    joined: _Scales = editor.at_end(f"scales {stored.dtype} {exponent} {others}", lambda: _Scales(exponent))
    return _added(joined.parts, stored)


def _added(parts: list[_Part], stored: npt.NDArray[Any]) -> ir.Value:
    part = _Part(stored, ir.Value())
    parts.append(part)
    return part.value


def _axis(shape: tuple[int, ...]) -> int:
    """The axis along which numbers of a shape run; the last one where there are several."""
    running = [axis for axis, size in enumerate(shape) if size > 1]
    return running[-1] if running else 0
