"""BatchNormalization disappears into the layer before it."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.graph.constants import (
    add_initializer,
    float32_array,
    is_private,
    replace_array,
    unique_value_name,
)
from amct_lite.graph.folded import remember_folded

__all__ = ["fold_batch_norms", "is_inference", "scale_and_shift"]

_Float64Array = npt.NDArray[np.float64]
_FOLDABLE = ("Conv", "ConvTranspose", "Gemm")


def fold_batch_norms(model: ir.Model, skip_layers: Collection[str] = ()) -> tuple[str, ...]:
    """Fold inference-mode BatchNormalization into the Conv, ConvTranspose or Gemm that feeds it alone.

    With s = gamma / sqrt(variance + epsilon): weight' = weight * s and bias' = (bias - mean) * s + beta,
    computed in float64 and stored as float32. The layer's output takes the name of BatchNormalization's.

    Precondition: constants are initializers.
    Postcondition: no foldable BatchNormalization follows a layer that is not in `skip_layers`. Not foldable
    is one in training mode, one whose numbers or the layer's weight are not private constants in float32, and
    one behind a tensor that something else reads or the graph returns.

    Args:
        model: The model, changed in place.
        skip_layers: Names of the layers to leave alone.

    Returns:
        The names of the layers that took one in.
    """
    folded: dict[str, None] = {}
    for norm in list(model.graph):
        if norm.op_type != "BatchNormalization" or norm.domain != "" or not is_inference(norm):
            continue
        source = norm.inputs[0]
        layer = source.producer() if source is not None else None
        if source is None or layer is None or layer.graph is not model.graph or not is_private(source):
            continue
        if layer.op_type not in _FOLDABLE or layer.domain != "" or layer.name in skip_layers:
            continue
        if _fold(model.graph, layer, norm):
            folded[str(layer.name)] = None
    return tuple(folded)


def is_inference(norm: ir.Node) -> bool:
    """Whether a BatchNormalization uses its stored statistics."""
    # Before opset 14 the number of outputs, not an attribute, tells training from inference.
    return norm.attributes.get_int("training_mode", 0) == 0 and not any(v.name for v in norm.outputs[1:])


def _fold(graph: ir.Graph, layer: ir.Node, norm: ir.Node) -> bool:
    weight = layer.inputs[1]
    weight_array = float32_array(weight)
    affine = scale_and_shift(norm)
    if weight is None or weight_array is None or not is_private(weight) or affine is None:
        return False
    scale, shift = affine
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias_array = _bias(layer, bias, len(scale))
    factors = _per_output_channel(layer, weight_array.shape, scale)
    if bias_array is None or factors is None:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        new_weight = (weight_array.astype(np.float64) * factors).astype(np.float32)
        new_bias = (bias_array * scale + shift).astype(np.float32)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return False
    replace_array(weight, new_weight)
    if bias is not None and is_private(bias):
        replace_array(bias, new_bias)
    else:
        name = unique_value_name(graph, f"{layer.name}_bias")
        layer.resize_inputs(3)
        layer.replace_input_with(2, add_initializer(graph, name, new_bias))
    layer.attributes.pop("beta", None)
    remember_folded(layer, norm, before=False)
    _bypass(graph, layer.outputs[0], norm)
    return True


def scale_and_shift(norm: ir.Node) -> tuple[_Float64Array, _Float64Array] | None:
    """BatchNormalization as y = x * scale + shift, each of shape (channels,); None if not constant."""
    arrays = [float32_array(value) for value in norm.inputs[1:5]]
    if any(array is None or array.ndim != 1 for array in arrays) or len(arrays) != 4:
        return None
    gamma, beta, mean, variance = (np.asarray(array, dtype=np.float64) for array in arrays)
    spread = variance + norm.attributes.get_float("epsilon", 1e-5)
    if not (spread > 0).all():
        return None
    scale = gamma / np.sqrt(spread)
    return scale, beta - mean * scale


def _bias(layer: ir.Node, bias: ir.Value | None, out_channels: int) -> _Float64Array | None:
    """The layer's bias times Gemm's beta, shape (out_channels,); None where it is no constant vector."""
    if bias is None:
        return np.zeros(out_channels)
    array = float32_array(bias)
    if (
        array is None
        or array.size not in (1, out_channels)
        or array.shape[-1:]
        not in (
            (),
            (1,),
            (out_channels,),
        )
    ):
        return None
    beta = layer.attributes.get_float("beta", 1.0) if layer.op_type == "Gemm" else 1.0
    return np.broadcast_to(array.astype(np.float64).reshape(-1) * beta, (out_channels,))


def _per_output_channel(layer: ir.Node, shape: tuple[int, ...], scale: _Float64Array) -> _Float64Array | None:
    """Return `scale` shaped to multiply the output channels of the stored weight; None if it cannot."""
    if layer.op_type == "Gemm":
        trans_b = layer.attributes.get_int("transB", 0)
        if len(shape) != 2 or shape[0 if trans_b else 1] != len(scale):
            return None
        return scale[:, None] if trans_b else scale[None, :]
    if len(shape) < 3:
        return None
    spatial = (1,) * (len(shape) - 2)
    if layer.op_type == "Conv":
        return scale.reshape(-1, 1, *spatial) if shape[0] == len(scale) else None
    # ConvTranspose stores (in_channels, out_channels / group, ...): each group's rows have their own columns.
    group = layer.attributes.get_int("group", 1)
    if shape[1] * group != len(scale) or shape[0] % group:
        return None
    rows = np.repeat(scale.reshape(group, shape[1]), shape[0] // group, axis=0)
    return rows.reshape(*rows.shape, *spatial)


def _bypass(graph: ir.Graph, output: ir.Value, norm: ir.Node) -> None:
    """Let the layer's output stand where BatchNormalization's stood, under its name."""
    normed = norm.outputs[0]
    name, shape, dtype = normed.name, normed.shape, normed.type
    normed.replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    output.name = name
    output.shape = shape if shape is not None else output.shape
    output.type = dtype if dtype is not None else output.type
