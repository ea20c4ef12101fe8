"""Activation quantizers in a graph: QuantizeLinear and, for NUQ, a table; shared by layers that quantize alike."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.export.editor import GraphEditor
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import Grid

__all__ = ["QuantizedTensor", "quantize_tensor", "quantizer_key", "table_lookup"]


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor in uint8 or uint16 with what decodes it: x' = (q - zero_point) * scale."""

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value


QuantizerKey = tuple[str, Grid, tuple[int, ...] | None, tuple[float, ...]]


def quantizer_key(layer: QuantizedLayer) -> QuantizerKey | None:
    """Layers with the same key quantize the same tensor in the same way and share one quantizer.

    Returns:
        The key; None where the tensor stays float.
    """
    if layer.grid is None:
        return None
    return layer.layer.activation, layer.grid, layer.activation_levels, layer.activation_costs


def quantize_tensor(editor: GraphEditor, layer: QuantizedLayer) -> QuantizedTensor:
    """Quantize a layer's activation in front of its node; NUQ's table is not included.

    Levels of 16 bits become uint16, which QuantizeLinear takes from opset 21 on; others uint8.
    uint8 with zero point offset + 128 is the same real grid as AMCT's int8 with offset, and the one that ONNX
    Runtime's integer kernels are fast on.
    """
    assert layer.grid is not None
    node, name = editor.node_of(layer.layer), layer.layer.name
    scale = editor.constant(f"{name}.quant.scale", np.float32(layer.grid.scale))
    unsigned = np.uint8 if layer.grid.num_bits <= 8 else np.uint16
    lowest = -128 if layer.grid.num_bits <= 8 else -(2**15)
    zero_point = editor.constant(f"{name}.quant.zero_point", unsigned(layer.grid.offset - lowest))
    activation = node.inputs[layer.layer.activation_index]
    value = editor.insert(node, "QuantizeLinear", [activation, scale, zero_point], f"{name}.quant")
    return QuantizedTensor(value, scale, zero_point)


def table_lookup(
    editor: GraphEditor, before: ir.Node, value: ir.Value, table: npt.NDArray[np.generic], name: str
) -> ir.Value:
    """Replace each element q of an unsigned tensor by table[q], keeping the shape.

    GatherElements on a flat int64 index is the fastest table that stock operators of ONNX Runtime give: about four
    times faster than Gather (docs/benchmarks.md has the figures).

    Args:
        editor: The graph.
        before: The node in front of which the look-up is put.
        value: uint8 tensor of any shape.
        table: Array of shape (256,).
        name: Prefix of the new nodes' names.

    Returns:
        Tensor of the table's type and the input's shape.
    """
    flat = editor.constant(f"{name}.flat", np.array([-1], np.int64))
    shape = editor.insert(before, "Shape", [value], f"{name}.shape")
    indices = editor.insert(before, "Reshape", [value, flat], f"{name}.indices")
    indices = editor.insert(before, "Cast", [indices], f"{name}.int64", {"to": int(ir.DataType.INT64)})
    entries = editor.constant(f"{name}.table", table)
    looked_up = editor.insert(before, "GatherElements", [entries, indices], f"{name}.lookup", {"axis": 0})
    # Without it, a size of 0 beyond the first axis would mean "as in the input". Opset 13 does not have it.
    attributes = {"allowzero": 1} if editor.opset_version >= 14 else {}
    return editor.insert(before, "Reshape", [looked_up, shape], name, attributes)
