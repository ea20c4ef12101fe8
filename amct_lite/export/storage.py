"""How a quantized weight is stored in a graph: packed codes, int8, or dense floats; all decode to the same numbers."""

from enum import StrEnum

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.errors import ExportError
from amct_lite.export.editor import GraphEditor
from amct_lite.export.packed_weight import int8_weight, packed_weight
from amct_lite.quantize.plan import CODEBOOK_OVERHEAD_BYTES
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.quantize.weight_rows import weight_layout

__all__ = ["Storage", "insert_weight", "is_integer", "storage_of", "stored_weight_bytes"]

# With more levels an index is as wide as the int8 value itself.
MAX_PACKED_LEVELS = 128


class Storage(StrEnum):
    """How weights are stored in the deploy model."""

    PACKED = "packed"
    INT8 = "int8"
    DENSE = "dense"


def storage_of(layer: QuantizedLayer, storage: Storage | None) -> Storage:
    """How one layer's weight is stored.

    Args:
        layer: A layer that gets a new weight.
        storage: What was asked for; None for codebooks packed and everything else as int8.

    Raises:
        ExportError: int8 was asked for, and the levels are floats.
    """
    if storage is Storage.DENSE or not layer.has_weight:
        return Storage.DENSE
    if storage is None:
        return Storage.INT8 if layer.codebook is None else Storage.PACKED
    if storage is Storage.PACKED:
        return Storage.INT8 if _packable(layer) is None else Storage.PACKED
    if layer.weight is None:
        raise ExportError(
            "Its codebook has levels that are no int8 values, so it cannot be stored as int8.",
            layer=layer.layer.name,
            remedy='Set its level_type to "int8" and calibrate again, or use storage "packed" or "dense".',
        )
    return Storage.INT8


def stored_weight_bytes(layer: QuantizedLayer, storage: Storage | None) -> int:
    """What a quantized weight takes in the deploy model: codes, levels, scales, and the graph that decodes them."""
    num_weights = layer.layer.num_weights
    match storage_of(layer, storage):
        case Storage.DENSE:
            return 4 * num_weights
        case Storage.INT8:
            # A scale and a zero point an output channel.
            return num_weights + 5 * layer.scale_w.size
        case Storage.PACKED:
            codebook = _packable(layer)
            assert codebook is not None
            return codebook.stored_bytes + CODEBOOK_OVERHEAD_BYTES


def is_integer(layer: QuantizedLayer, storage: Storage | None) -> bool:
    """Whether both operands of a layer stand as integers under DequantizeLinear."""
    return layer.runs_on_integers and storage is not Storage.DENSE


def insert_weight(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer, storage: Storage) -> ir.Value:
    """Insert a layer's weight in front of its node.

    Args:
        editor: The graph.
        node: The layer's node.
        layer: The layer.
        storage: From `storage_of`.

    Returns:
        float32 of the stored weight's shape, bit-equal to `layer.decode_weight()`.
    """
    name = f"{layer.layer.weight}.quantized"
    if storage is Storage.PACKED:
        codebook = _packable(layer)
        assert codebook is not None
        make = int8_weight if layer.runs_on_integers else packed_weight
        # Six names a weight: those of the network, often a hundred letters long, would cost more than its levels.
        return make(editor, node, codebook, weight_layout(layer.layer), editor.prefix("w"))
    if storage is Storage.DENSE:
        return editor.constant(name, layer.decode_weight())
    assert layer.weight is not None
    if layer.grid is not None:
        return editor.dequantize(node, layer.weight, layer.scale_w, name, layer.scale_axis)
    return _foldable(editor, node, layer, name)


def _foldable(editor: GraphEditor, node: ir.Node, layer: QuantizedLayer, name: str) -> ir.Value:
    """int8 values decoded by Cast and Mul: under DequantizeLinear they would be decoded again on every run."""
    assert layer.weight is not None
    shape = [1] * layer.weight.ndim
    if layer.scale_axis is not None:
        shape[layer.scale_axis] = -1
    values = editor.insert(
        node, "Cast", [editor.constant(name, layer.weight)], f"{name}.float", {"to": int(ir.DataType.FLOAT)}
    )
    return editor.insert(node, "Mul", [values, editor.constant(f"{name}.scale", layer.scale_w.reshape(shape))], name)


def _packable(layer: QuantizedLayer) -> Codebook | None:
    """A layer's codebook, or the one that its int8 levels are where they are few; None for plain int8."""
    if layer.codebook is not None:
        return layer.codebook
    levels = _int8_levels(layer)
    if layer.weight is None or levels is None:
        return None
    rows = weight_layout(layer.layer).to_rows(layer.weight)
    return Codebook(
        tables=levels.astype(np.float32).reshape(1, -1, 1),
        codes=np.searchsorted(levels, rows).astype(np.uint8),
        scales=layer.scale_w,
        num_rows=rows.shape[0],
        rows_per_table=rows.shape[0],
        level_type=LevelType.INT8,
    )


def _int8_levels(layer: QuantizedLayer) -> npt.NDArray[np.int64] | None:
    """The levels that NUQ keeps, or those of fewer than 8 bits; None where an index would be as wide as a level."""
    if layer.weight_levels is not None:
        return np.array(layer.weight_levels) if len(layer.weight_levels) <= MAX_PACKED_LEVELS else None
    half = 1 << (layer.weight_bits - 1)
    return np.arange(-half, half) if layer.weight_bits < 8 else None
