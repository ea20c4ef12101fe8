"""BatchNormalization disappears into the layer behind it, where it could not into the one before it."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.graph.constants import add_initializer, float32_array, is_private, replace_array, unique_value_name
from amct_lite.graph.folded import remember_folded
from amct_lite.graph.passes.batch_norm_folding import is_inference, scale_and_shift

__all__ = ["fold_batch_norms_forward"]


def fold_batch_norms_forward(model: ir.Model, skip_layers: Collection[str] = ()) -> dict[str, str]:
    """Fold inference-mode BatchNormalization into the only Conv or Gemm that reads it.

    With y = x * s + t in front of a layer: weight' = weight * s along the input channels, bias' = bias + weight . t,
    computed in float64. A padded Conv is left alone: padding puts zeros in place of y, not of x.

    Precondition: constants are initializers; norms that fold backwards are gone.
    Postcondition: no foldable BatchNormalization stands in front of a layer that is not in `skip_layers`.

    Args:
        model: The model, changed in place.
        skip_layers: Names of the layers to leave alone.

    Returns:
        Name of each BatchNormalization that disappeared -> name of the layer that took it in.
    """
    folded: dict[str, str] = {}
    # From the end, so that of several norms in a row the one next to the layer goes first.
    for norm in reversed(list(model.graph)):
        if norm.op_type != "BatchNormalization" or norm.domain != "" or not is_inference(norm):
            continue
        output = norm.outputs[0]
        if not is_private(output):
            continue
        ((layer, index),) = output.uses()
        if layer.graph is not model.graph or index != 0 or layer.name in skip_layers or not _takes(layer):
            continue
        if _fold(model.graph, norm, layer):
            folded[str(norm.name)] = str(layer.name)
            remember_folded(layer, norm, before=True)
            layer.replace_input_with(0, norm.inputs[0])
            model.graph.remove(norm, safe=True)
    return folded


def _takes(layer: ir.Node) -> bool:
    if layer.domain != "":
        return False
    if layer.op_type == "Gemm":
        return layer.attributes.get_int("transA", 0) == 0
    padded = any(layer.attributes.get_ints("pads", []))
    return (
        layer.op_type == "Conv"
        and not padded
        and layer.attributes.get_string("auto_pad", "NOTSET")
        in (
            "NOTSET",
            "VALID",
        )
    )


def _fold(graph: ir.Graph, norm: ir.Node, layer: ir.Node) -> bool:
    weight, affine = layer.inputs[1], scale_and_shift(norm)
    array = float32_array(weight)
    if weight is None or array is None or affine is None or not is_private(weight):
        return False
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias_array = float32_array(bias)
    if bias is not None and (bias_array is None or not is_private(bias) or bias_array.ndim != 1):
        return False
    if layer.op_type == "Gemm" and any(layer.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    spread = [_along_inputs(layer, array.shape, values) for values in affine]
    if spread[0] is None or spread[1] is None:
        return False
    values = array.astype(np.float64)
    out_axis = 1 if layer.op_type == "Gemm" and layer.attributes.get_int("transB", 0) == 0 else 0
    shift = (values * spread[1]).sum(axis=tuple(axis for axis in range(values.ndim) if axis != out_axis))
    replace_array(weight, (values * spread[0]).astype(np.float32))
    if bias is not None and bias_array is not None:
        replace_array(bias, (bias_array + shift).astype(np.float32))
    else:
        layer.resize_inputs(3)
        name = unique_value_name(graph, f"{layer.name}_bias")
        layer.replace_input_with(2, add_initializer(graph, name, shift.astype(np.float32)))
    return True


def _along_inputs(
    layer: ir.Node, shape: tuple[int, ...], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64] | None:
    """One number per input channel, shaped to multiply the stored weight; None where the sizes do not fit."""
    if layer.op_type == "Gemm":
        in_axis = 1 if layer.attributes.get_int("transB", 0) else 0
        if len(shape) != 2 or shape[in_axis] != values.size:
            return None
        return values[None, :] if in_axis == 1 else values[:, None]
    group = layer.attributes.get_int("group", 1)
    if len(shape) < 3 or shape[1] * group != values.size or shape[0] % group:
        return None
    # Output channels of a group see that group's input channels.
    rows = np.repeat(values.reshape(group, shape[1]), shape[0] // group, axis=0)
    return rows.reshape(*rows.shape, *(1,) * (len(shape) - 2))
