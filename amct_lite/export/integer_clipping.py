"""Clip integers instead of floats where a quantizer's grid reaches beyond what Relu or Clip let through.

ONNX Runtime drops Relu and Clip in front of a quantizer whose grid ends where they clip, and the convolution before
them gets its integer kernel. Where the grid reaches further (a range chosen for its error, a symmetric grid behind
Relu) they would stand between the two. Quantization is monotone, so clipping the levels gives the same numbers.
"""

import math

import numpy as np
import onnx_ir as ir

from amct_lite.export.editor import GraphEditor
from amct_lite.graph.constants import constant_tensor

__all__ = ["clip_integers"]


def clip_integers(editor: GraphEditor) -> None:
    """Move quantizers in front of Relu and Clip, and clip what they give, where their grid reaches further.

    Args:
        editor: A QDQ graph with uint8 activations.
    """
    for quantizer in [node for node in editor.graph if node.op_type == "QuantizeLinear"]:
        value = quantizer.inputs[0]
        clipping = value.producer() if value is not None else None
        if value is None or clipping is None or value.is_graph_output():
            continue
        if any(user.op_type != "QuantizeLinear" for user, _ in value.uses()):
            continue
        bounds = _bounds(clipping)
        scale, zero_point = (constant_tensor(quantizer.inputs[index]) for index in (1, 2))
        if bounds is None or scale is None or zero_point is None or zero_point.dtype != ir.DataType.UINT8:
            continue
        step, zero = np.float32(scale.numpy()), int(zero_point.numpy())
        low, high = bounds
        if -zero * step >= low and (255 - zero) * step <= high:
            continue
        lowest, highest = (_level(bound, step, zero) for bound in bounds)
        quantizer.replace_input_with(0, clipping.inputs[0])
        if (lowest, highest) != (0, 255):
            name = f"{quantizer.name}.clip"
            levels = {"low": lowest, "high": highest}
            ends = [editor.constant(f"{name}.{end}", np.uint8(level)) for end, level in levels.items()]
            editor.insert_after_output(quantizer, "Clip", ends, name, {})
    for node in [node for node in editor.graph if _bounds(node) is not None]:
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            editor.graph.remove(node, safe=True)


def _level(bound: float, step: np.float32, zero: int) -> int:
    """The level of a bound, as QuantizeLinear rounds it."""
    if math.isinf(bound):
        return 0 if bound < 0 else 255
    return int(np.clip(np.rint(np.float32(bound) / step) + zero, 0, 255))


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """What a Relu or a Clip with constant bounds lets through; None for any other operator."""
    if node.domain != "" or node.op_type not in ("Relu", "Clip"):
        return None
    if node.op_type == "Relu":
        return 0.0, math.inf
    bounds = [-math.inf, math.inf]
    for index, value in enumerate(node.inputs[1:3]):
        tensor = constant_tensor(value)
        if value is not None and tensor is None:
            return None
        if tensor is not None:
            bounds[index] = float(tensor.numpy())
    return bounds[0], bounds[1]
