"""Zeros that a Pad puts around a convolution's input become the convolution's own padding."""

import numpy as np
import onnx_ir as ir

from amct_lite.graph.constants import constant_tensor

__all__ = ["fold_pads"]


def fold_pads(model: ir.Model) -> bool:
    """Let convolutions read what stands in front of a Pad with zeros, and pad it themselves.

    TensorFlow's exporters write such Pads for strided convolutions. An integer kernel cannot run through them.

    Precondition: constants are initializers and folded.
    Postcondition: no Conv of the main graph with explicit padding reads a Pad of constant, non-negative, spatial zeros.
    A Pad that nothing else reads is left without use.

    Args:
        model: The model, changed in place.

    Returns:
        Whether a convolution was changed.
    """
    changed = False
    for node in model.graph:
        if node.op_type != "Conv" or node.domain != "" or node.inputs[0] is None or node.inputs[1] is None:
            continue
        pad = node.inputs[0].producer()
        widths = _zeros_around(pad) if pad is not None else None
        own = _own_padding(node)
        if pad is None or widths is None or own is None or len(widths) != 2 * (len(own) // 2 + 2):
            continue
        begins, ends = np.split(widths, 2)
        if begins[:2].any() or ends[:2].any():
            continue
        spatial = np.concatenate([begins[2:], ends[2:]])
        node.attributes.pop("auto_pad", None)
        node.attributes.add(ir.AttrInt64s("pads", [int(width) for width in spatial + own]))
        node.replace_input_with(0, pad.inputs[0])
        changed = True
    return changed


def _zeros_around(node: ir.Node) -> np.ndarray | None:
    """The widths of a Pad, all begins and then all ends; None where it is no Pad with zeros."""
    if node.op_type != "Pad" or node.domain != "" or node.attributes.get_string("mode", "constant") != "constant":
        return None
    inputs = [*node.inputs, None, None]
    widths, fill, axes = constant_tensor(inputs[1]), inputs[2], inputs[3]
    filled = constant_tensor(fill)
    if widths is None or (fill is not None and (filled is None or filled.numpy().any())):
        return None
    found = widths.numpy().astype(np.int64)
    if axes is not None:
        data, chosen = node.inputs[0], constant_tensor(axes)
        if data is None or data.shape is None or chosen is None:
            return None
        rank = data.shape.rank()
        where = chosen.numpy().astype(np.int64) % rank
        begins, ends = np.split(found, 2)
        found = np.zeros(2 * rank, np.int64)
        found[where], found[rank + where] = begins, ends
    return found if (found >= 0).all() else None


def _own_padding(node: ir.Node) -> np.ndarray | None:
    """A Conv's own padding, spatial begins and then ends; None where its size depends on the input's."""
    weight = node.inputs[1]
    shape = node.attributes.get_ints("kernel_shape", ())
    if not shape and weight is not None and weight.shape is not None:
        shape = [dim for dim in weight.shape.dims[2:] if isinstance(dim, int)]
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if not shape or auto_pad not in ("NOTSET", "VALID"):
        return None
    zeros = [0] * (2 * len(shape))
    return np.array(zeros if auto_pad == "VALID" else node.attributes.get_ints("pads", zeros), np.int64)
