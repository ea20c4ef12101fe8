"""Gemm's alpha and beta move into its constant operands."""

import numpy as np
import onnx_ir as ir

from amct_lite.graph.constants import float32_array, is_private, replace_array

__all__ = ["fold_gemm_scaling"]


def fold_gemm_scaling(model: ir.Model) -> bool:
    """Fold alpha into the constant weight and beta into the constant bias of each Gemm, where both allow it.

    A constant that something else uses as well, or that a caller may override, keeps its factor.

    Precondition: constants are initializers.
    Postcondition: a Gemm whose weight is a private float32 constant has alpha 1; likewise bias and beta.

    Args:
        model: The model, changed in place.

    Returns:
        Whether a factor was folded.
    """
    changed = False
    for node in model.graph:
        if node.op_type != "Gemm" or node.domain != "":
            continue
        changed |= _fold(node, "alpha", 1) or _fold(node, "alpha", 0)
        if len(node.inputs) < 3 or node.inputs[2] is None:
            node.attributes.pop("beta", None)
        else:
            changed |= _fold(node, "beta", 2)
    return changed


def _fold(node: ir.Node, attribute: str, index: int) -> bool:
    factor = node.attributes.get_float(attribute, 1.0)
    value = node.inputs[index]
    array = float32_array(value)
    if factor == 1.0 or value is None or array is None or not is_private(value):
        return False
    scaled = array.astype(np.float64) * factor if factor else np.zeros(array.shape)
    # A weight that would overflow to infinity is worse than a factor.
    if np.abs(scaled).max(initial=0.0) > np.finfo(np.float32).max:
        return False
    replace_array(value, scaled.astype(np.float32))
    del node.attributes[attribute]
    return True
