"""Packed codes inside a graph: the operators that take them out of their bytes.

One MatMulInteger makes of a group's bytes a number for each code, which holds the code among other bits, and one
GatherElements looks the numbers up; each place in a group has a table of its own that ignores the other bits.
Measured on ONNX Runtime, these two take 0.2 and 0.5 ns a weight, where Gather takes 4 to 8, Mod 2.5 and Div 0.6. Few
and small results in between count as much: ONNX Runtime keeps them all until it has folded the whole graph.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.packing import CodeLayout, code_layout, pack_codes
from amct_lite.export.editor import GraphEditor

__all__ = ["insert_codes", "insert_lookup", "take_first", "with_shape"]


def insert_lookup(
    editor: GraphEditor,
    before: ir.Node,
    levels: ir.Value,
    num_levels: int,
    codes: npt.NDArray[np.uint8],
    num_bits: int,
    name: str,
) -> ir.Value:
    """Pack codes, and insert the operators that look them up in one table.

    Args:
        editor: The graph.
        before: Where the operators go.
        levels: The table, any type, shape (num_levels,).
        num_levels: Its levels.
        codes: uint8 array of any shape, taken in C order.
        num_bits: Bits of a code.
        name: Begins the names of what is added.

    Returns:
        Values of the table's type and of any shape; in C order, they are those of the codes.
    """
    layout = code_layout(num_bits)
    sums = _sums(editor, before, pack_codes(codes, num_bits), layout, name)
    table = editor.insert(before, "Gather", [levels, _codes_of_sums(editor, layout, num_levels)], f"{name}.table")
    return _picked(editor, before, table, sums, codes.size, layout, name)


def insert_codes(
    editor: GraphEditor, before: ir.Node, codes: npt.NDArray[np.uint8], num_bits: int, name: str
) -> ir.Value:
    """Pack codes, and insert the operators that unpack them.

    Args:
        editor: The graph.
        before: Where the operators go.
        codes: uint8 array of any shape, taken in C order.
        num_bits: Bits of a code.
        name: Begins the names of what is added.

    Returns:
        int32 of any shape; in C order, they are the codes.
    """
    layout = code_layout(num_bits)
    sums = _sums(editor, before, pack_codes(codes, num_bits), layout, name)
    table = _codes_of_sums(editor, layout, 1 << num_bits)
    return _picked(editor, before, table, sums, codes.size, layout, f"{name}.code")


def with_shape(editor: GraphEditor, before: ir.Node, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Value:
    """Insert a Reshape."""
    return editor.insert(before, "Reshape", [value, _integers(editor, shape)], name)


def take_first(editor: GraphEditor, before: ir.Node, value: ir.Value, count: int, axis: int, name: str) -> ir.Value:
    """Insert a Slice that keeps the first `count` along an axis."""
    inputs = [value, _integers(editor, (0,)), _integers(editor, (count,)), _integers(editor, (axis,))]
    return editor.insert(before, "Slice", inputs, name)


def _sums(
    editor: GraphEditor, before: ir.Node, packed: npt.NDArray[np.uint8], layout: CodeLayout, name: str
) -> ir.Value:
    """For each code a number that holds it: int32, shape (group_codes, groups)."""
    sources = editor.constant(f"{name}.codes", packed)
    if layout.whole_bits < 8:
        shift = editor.shared(
            f"uint8 {layout.whole_bits}", lambda: editor.constant("packed.shift", np.uint8(layout.whole_bits))
        )
        spare = editor.insert(before, "BitShift", [sources, shift], f"{name}.spare", {"direction": "RIGHT"})
        sources = editor.insert(before, "Concat", [sources, spare], f"{name}.bytes", {"axis": 0})
    weights = editor.shared(
        f"weights {layout.num_bits}", lambda: editor.constant(f"packed.weights_{layout.num_bits}", layout.weights)
    )
    return editor.insert(before, "MatMulInteger", [weights, sources], f"{name}.sums")


def _picked(
    editor: GraphEditor,
    before: ir.Node,
    table: ir.Value,
    sums: ir.Value,
    count: int,
    layout: CodeLayout,
    name: str,
) -> ir.Value:
    """The entries of a table of shape (group_codes, num_sums), without those of codes that fill up the groups."""
    value = editor.insert(before, "GatherElements", [table, sums], f"{name}.values", {"axis": 1})
    if count % layout.group_codes == 0:
        return value
    value = with_shape(editor, before, value, (-1,), f"{name}.values")
    return take_first(editor, before, value, count, 0, f"{name}.values")


def _codes_of_sums(editor: GraphEditor, layout: CodeLayout, num_levels: int) -> ir.Value:
    """Which code each sum holds: int32, shape (group_codes, num_sums), each below `num_levels`.

    All layers share it, and it is computed, as the numbers would take thousands of bytes of the file.
    """

    def make() -> ir.Value:
        before, name = editor.first, "packed.table"
        every_sum = editor.insert(before, "Range", [_number(editor, n) for n in (0, layout.num_sums, 1)], name)
        divisors = editor.constant("packed.divisors", np.int32(1) << layout.shifts.astype(np.int32)[:, None])
        shifted = editor.insert(before, "Div", [every_sum, divisors], name)
        codes = editor.insert(before, "Mod", [shifted, _number(editor, 1 << layout.num_bits)], name)
        if num_levels < 1 << layout.num_bits:
            # Sums of the table may hold codes that no weight has.
            codes = editor.insert(before, "Min", [codes, _number(editor, num_levels - 1)], name)
        return codes

    return editor.shared(f"codes {layout.num_bits} {num_levels}", make)


def _number(editor: GraphEditor, number: int) -> ir.Value:
    return editor.shared(f"int32 {number}", lambda: editor.constant(f"packed.{number}", np.int32(number)))


def _integers(editor: GraphEditor, numbers: tuple[int, ...]) -> ir.Value:
    text = "_".join(map(str, numbers))
    return editor.shared(f"int64 {text}", lambda: editor.constant(f"packed.{text}", np.array(numbers, np.int64)))
