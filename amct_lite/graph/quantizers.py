"""QuantizeLinear and DequantizeLinear in a graph: what their constants say, and which two belong together."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.constants import constant_tensor, float32_array

__all__ = ["Quantizer", "find_pair", "quantizer_behind", "read_quantizer"]

# Level 0 of AMCT's signed levels, seen from the type's own.
_SIGNED_SHIFT = {np.dtype(np.int8): 0, np.dtype(np.uint8): 128, np.dtype(np.int32): 0}
_NEUTRAL = "Export the model again with constant scales and zero points of type int8 or uint8."


@dataclass(frozen=True)
class Quantizer:
    """A uniform grid in a graph: x' = (q - offset) * scale.

    Attributes:
        scales: float32 array, shape (channels,) or (1,).
        offsets: int64 array of that shape: the signed level that stands for 0 (uint8's zero point minus 128).
        axis: The axis of the channels; None for one scale.
    """

    scales: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]
    axis: int | None

    def equals(self, other: "Quantizer") -> bool:
        """Whether both are the same grid."""
        same_axis = self.axis == other.axis
        return same_axis and np.array_equal(self.scales, other.scales) and np.array_equal(self.offsets, other.offsets)

    @property
    def starts_at_zero(self) -> bool:
        """Whether it has no level below 0, so that quantizing clips there."""
        return self.axis is None and int(self.offsets[0]) == -128

    def transposed(self, perm: list[int]) -> "Quantizer":
        """The grid of the transposed tensor."""
        return self if self.axis is None else Quantizer(self.scales, self.offsets, perm.index(self.axis))

    def decode(self, levels: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """What stored levels stand for, float32 of their shape."""
        shape = [1] * levels.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        signed = levels.astype(np.int64) - _SIGNED_SHIFT[levels.dtype]
        return (signed - self.offsets.reshape(shape)).astype(np.float32) * self.scales.reshape(shape)


def read_quantizer(node: ir.Node) -> Quantizer:
    """What a QuantizeLinear or DequantizeLinear says.

    Args:
        node: The operator.

    Raises:
        ModelError: A factor is not constant, or not of a kind that has a meaning here.
    """
    scales = float32_array(node.inputs[1])
    if scales is None:
        raise _unusable(node, "its scale must be a float32 constant")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise _unusable(node, f"its scale must be finite and greater than 0, but holds {scales.min()!r}")
    zero_points = _array(node, 2)
    if zero_points is None and len(node.inputs) > 2 and node.inputs[2] is not None:
        raise _unusable(node, "its zero point must be constant")
    kind = _kind(node) if zero_points is None else zero_points.dtype
    if kind not in _SIGNED_SHIFT:
        raise _unusable(node, f"its levels are of type {kind}, and only int8 and uint8 are supported")
    if node.attributes.get_int("block_size", 0):
        raise _unusable(node, "it has a scale per block (block_size), and only one per channel is supported")
    size = scales.size
    offsets = np.zeros(size, np.int64) if zero_points is None else zero_points.astype(np.int64).reshape(-1)
    if offsets.size != size:
        raise _unusable(node, f"it has {size} scales and {offsets.size} zero points")
    axis = None
    if size > 1:
        data = node.inputs[0]
        rank = data.shape.rank() if data is not None and data.shape is not None else 0
        axis = node.attributes.get_int("axis", 1)
        axis = axis + rank if axis < 0 else axis
    return Quantizer(scales.reshape(-1), offsets - _SIGNED_SHIFT[kind], axis)


def find_pair(dequantize: ir.Node) -> tuple[ir.Value, Quantizer]:
    """What a DequantizeLinear decodes.

    Args:
        dequantize: The operator.

    Returns:
        The value in front of its QuantizeLinear, or the constant of integers that it decodes; and their grid.

    Raises:
        ModelError: It decodes something else, or the two have different factors.
    """
    quantizer, levels = read_quantizer(dequantize), dequantize.inputs[0]
    if constant_tensor(levels) is not None:
        assert levels is not None
        return levels, quantizer
    quantize = None if levels is None else levels.producer()
    if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
        raise ModelError(
            f"DequantizeLinear reads {levels.name if levels else None!r}, which no QuantizeLinear makes: they must be"
            " paired.",
            layer=str(dequantize.name),
            remedy="Export the model with each QuantizeLinear in front of its DequantizeLinear, as QDQ.",
        )
    if not read_quantizer(quantize).equals(quantizer):
        raise ModelError(
            f"QuantizeLinear {quantize.name!r} and the DequantizeLinear behind it have different factors.",
            layer=str(dequantize.name),
            remedy="Export the model again: both must have the same scale, zero point and axis.",
        )
    return quantize.inputs[0], quantizer


def quantizer_behind(value: ir.Value | None) -> Quantizer | None:
    """The grid of a value that a DequantizeLinear makes, perhaps transposed since; None for any other value."""
    node = None if value is None else value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Transpose":
        found = quantizer_behind(node.inputs[0])
        assert value is not None
        rank = value.shape.rank() if value.shape is not None else 2
        return None if found is None else found.transposed(list(node.attributes.get_ints("perm", range(rank)[::-1])))
    return find_pair(node)[1] if node.op_type == "DequantizeLinear" else None


def _array(node: ir.Node, index: int) -> npt.NDArray[np.generic] | None:
    tensor = constant_tensor(node.inputs[index]) if len(node.inputs) > index else None
    array: npt.NDArray[np.generic] | None = None if tensor is None else tensor.numpy()
    return array


def _kind(node: ir.Node) -> np.dtype[np.generic]:
    """The type of the levels where there is no zero point: the data's, or uint8."""
    if node.op_type == "DequantizeLinear":
        data = node.inputs[0]
        tensor = constant_tensor(data)
        if tensor is not None:
            return tensor.numpy().dtype
        producer = None if data is None else data.producer()
        if producer is not None and producer.op_type == "QuantizeLinear":
            zero_point = _array(producer, 2)
            return np.dtype(np.uint8) if zero_point is None else zero_point.dtype
    declared = node.attributes.get_int("output_dtype", 0)
    return np.dtype(np.uint8) if not declared else np.dtype(ir.DataType(declared).numpy())


def _unusable(node: ir.Node, why: str) -> ModelError:
    return ModelError(f"This {node.op_type} cannot be read: {why}.", layer=str(node.name), remedy=_NEUTRAL)
