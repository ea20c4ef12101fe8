"""Packed codes inside a graph: the operators that take them out of their bytes.

BitShift moves each byte of a group to where its pieces begin, and one ConvInteger, whose kernel is a group of bytes,
makes the codes of the pieces: int32, ready for GatherElements. Measured on ONNX Runtime these take 0.5 to 1 and 0.3 ns
a weight and a look-up 0.6, where Gather takes 8, Mod 2 and Div 0.7. What counts as much is that there are few of them:
ONNX Runtime spends 20 microseconds on each node that it folds, copies each result once more for the next node, and
keeps it until the whole graph is folded.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.packing import CodeLayout, code_layout, pack_codes
from amct_lite.export.editor import GraphEditor

__all__ = [
    "LOOKUP_AXIS",
    "fits_rows",
    "group_shape",
    "insert_codes",
    "insert_numbers",
    "repeated",
    "split_along",
    "take_first",
    "with_shape",
    "without_filler",
]

# Codes have the five axes of a convolution in three dimensions; the last one is that along which they are looked up.
LOOKUP_AXIS = 4

# ONNX Runtime multiplies uint8 by uint8 fast, by int8 20 times slower: the weights are moved up, and their zero point.
_ZERO_POINT = 128


def fits_rows(rows: int, num_bits: int) -> bool:
    """Whether the rows of a matrix of codes fill up groups, so that they can be unpacked as rows."""
    return rows % code_layout(num_bits).group_codes == 0


def group_shape(rows: int, num_bits: int) -> tuple[int, ...]:
    """The shape of one number for each row, to go with codes that are unpacked as rows."""
    group_codes = code_layout(num_bits).group_codes
    return (1, group_codes, 1, rows // group_codes, 1)


def insert_codes(
    editor: GraphEditor,
    before: ir.Node,
    codes: npt.NDArray[np.uint8],
    num_bits: int,
    name: str,
    *,
    columns: int | None = None,
    copies: int = 1,
) -> ir.Value:
    """Pack codes, and insert the operators that unpack them.

    Args:
        editor: The graph.
        before: Where the operators go.
        codes: uint8 array of any shape, taken in C order.
        num_bits: Bits of a code.
        name: Begins the names of what is added.
        columns: How long the rows of codes are where these stay apart and `fits_rows`; None for one long row.
        copies: How many times all codes are to be there, one time after the other.

    Returns:
        int32, in C order the codes: shape (1, copies * group_codes, 1, rows / group_codes, columns), or
        (1, copies * group_codes, 1, 1, groups) where codes behind the last one fill up the last group.
    """
    layout = code_layout(num_bits)
    packed = pack_codes(codes, num_bits)
    shape = (1, 1, layout.group_bytes, -1, columns or packed.shape[1])
    value = editor.constant(f"{name}.codes", packed.reshape(shape))
    if num_bits == 8 and copies == 1:
        return editor.insert(before, "Cast", [value], f"{name}.code", {"to": int(ir.DataType.INT32)})
    shifts, weights, zero_point = _shared(editor, layout, copies)
    if num_bits < 8:
        value = editor.insert(before, "BitShift", [value, shifts], f"{name}.bits", {"direction": "RIGHT"})
    return editor.insert(before, "ConvInteger", [value, weights, None, zero_point], f"{name}.code")


def insert_numbers(editor: GraphEditor, before: ir.Node, numbers: npt.NDArray[np.intp], name: str) -> ir.Value:
    """Insert numbers from 0 up, int32, stored as small as can be."""
    stored = editor.constant(name, numbers.astype(np.min_scalar_type(int(numbers.max()))))
    return editor.insert(before, "Cast", [stored], f"{name}.int32", {"to": int(ir.DataType.INT32)})


def without_filler(editor: GraphEditor, before: ir.Node, value: ir.Value, count: int, bits: int, name: str) -> ir.Value:
    """What belongs to the first `count` codes of one long row; of any shape where that is all."""
    if count % code_layout(bits).group_codes == 0:
        return value
    return take_first(editor, before, with_shape(editor, before, value, (-1,), name), count, 0, name)


def with_shape(editor: GraphEditor, before: ir.Node, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Value:
    """Insert a Reshape."""
    return editor.insert(before, "Reshape", [value, _integers(editor, shape)], name)


def repeated(editor: GraphEditor, before: ir.Node, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Value:
    """Insert an Expand."""
    return editor.insert(before, "Expand", [value, _integers(editor, shape)], name)


def take_first(editor: GraphEditor, before: ir.Node, value: ir.Value, count: int, axis: int, name: str) -> ir.Value:
    """Insert a Slice that keeps the first `count` along an axis."""
    inputs = [value, _integers(editor, (0,)), _integers(editor, (count,)), _integers(editor, (axis,))]
    return editor.insert(before, "Slice", inputs, name)


def split_along(
    editor: GraphEditor,
    before: ir.Node,
    value: ir.Value,
    counts: Sequence[int],
    parts: Sequence[ir.Value],
    name: str,
    axis: int,
) -> None:
    """Make parts, which are used already, of a value along an axis; one part is the value itself."""
    if len(parts) == 1:
        ir.convenience.replace_all_uses_with(parts[0], value)
        return
    sizes = editor.constant(f"{name}.counts", np.array(counts, np.int64))
    editor.split(before, value, sizes, parts, f"{name}.split", axis)


def _shared(editor: GraphEditor, layout: CodeLayout, copies: int) -> tuple[ir.Value, ir.Value, ir.Value]:
    """What all layers of a width share: shifts, weights, and the weights' zero point."""
    bits = layout.num_bits

    def shifts() -> ir.Value:
        return editor.constant(f"packed.shifts_{bits}", layout.shifts[None, :, :, None, None])

    def weights() -> ir.Value:
        moved = (layout.weights + _ZERO_POINT).astype(np.uint8)
        return editor.constant(f"packed.weights_{bits}", np.tile(moved, (copies, 1, 1))[:, :, :, None, None])

    return (
        editor.shared(f"packed shifts {bits}", shifts),
        editor.shared(f"packed weights {bits} {copies}", weights),
        editor.shared("packed zero point", lambda: editor.constant("packed.zero_point", np.uint8(_ZERO_POINT))),
    )


def _integers(editor: GraphEditor, numbers: tuple[int, ...]) -> ir.Value:
    text = "_".join(map(str, numbers))
    return editor.shared(f"int64 {text}", lambda: editor.constant(f"packed.{text}", np.array(numbers, np.int64)))
