"""Axes and sizes that many layers share: Caffe's axis numbers, reshapes and cuts with a free batch."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Shape, Translation, unsupported
from amct_lite.errors import ModelError

__all__ = ["canonical_axis", "cut", "free_batch", "keep_batch", "reshape", "volume"]


def canonical_axis(layer: CaffeLayer, axis: int, rank: int) -> int:
    """Caffe's rule: -rank to rank - 1, negative ones count from the end.

    Args:
        layer: Who asks.
        axis: As the prototxt has it.
        rank: The number of axes.

    Raises:
        ModelError: The axis is out of that range.
    """
    if not -rank <= axis < rank:
        raise unsupported(
            layer,
            f"axis {axis} does not exist in a blob of {rank} axes.",
            f"Give an axis from {-rank} to {rank - 1}.",
        )
    return axis % rank


def free_batch(layer: CaffeLayer, cause: str) -> ModelError:
    """The error for a layer whose result depends on how many images there are, in a graph with a free batch."""
    return unsupported(layer, cause, "Translate the network with the batch of its prototxt instead of a free one.")


def volume(sizes: Sequence[int | None]) -> int | None:
    """The product of sizes; None where one of them is free."""
    result = 1
    for size in sizes:
        if size is None:
            return None
        result *= size
    return result


def keep_batch(layer: CaffeLayer, old: Shape, new: Shape) -> None:
    """Make sure that a free first size still counts images: two sizes that differ at run time must not share a name.

    Args:
        layer: Who reshapes.
        old: The shape before.
        new: The shape after, of the same volume.

    Raises:
        ModelError: The batch is free, and mixes with other axes.
    """
    if None in new[1:] or (None in (*old, *new) and (old[:1] != new[:1] or volume(old[1:]) != volume(new[1:]))):
        raise free_batch(layer, "it mixes the batch with other axes.")


def reshape(translation: Translation, layer: CaffeLayer, value: ir.Value, shape: Shape) -> ir.Value:
    """The value in another shape of the same volume, of which one size may be free."""
    sizes = np.array([-1 if size is None else size for size in shape], np.int64)
    return translation.node("Reshape", [value, translation.constant(layer, "shape", sizes)])


def cut(
    translation: Translation, layer: CaffeLayer, value: ir.Value, ranges: Mapping[int, tuple[int, int]]
) -> ir.Value:
    """The value between `start` and `end` of some axes: axis -> (start, end)."""
    if not ranges:
        return value
    arguments = {
        "starts": [start for start, _ in ranges.values()],
        "ends": [end for _, end in ranges.values()],
        "axes": list(ranges),
    }
    constants = [translation.constant(layer, role, np.array(array, np.int64)) for role, array in arguments.items()]
    return translation.node("Slice", [value, *constants])
