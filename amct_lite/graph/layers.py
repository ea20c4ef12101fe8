"""The quantizable operators of a graph, each as a `Layer`."""

import dataclasses
from collections.abc import Callable

import onnx_ir as ir

from amct_lite.graph.blocks import WeightFacts, why_blocked
from amct_lite.graph.constants import constant_tensor
from amct_lite.types import Layer, LayerKind

__all__ = ["find_layers"]


def find_layers(model: ir.Model) -> tuple[Layer, ...]:
    """Find Conv, ConvTranspose, Gemm, AveragePool, and MatMul with one constant operand, in the main graph.

    A layer that no technique can touch is listed too, with the reason in `blocked`.

    Args:
        model: A normalised model; it is not changed.

    Returns:
        The layers in graph order.
    """
    facts = WeightFacts(model)
    found: list[tuple[ir.Node, Layer]] = []
    for node in model.graph:
        view = _VIEWS.get(node.op_type) if node.domain == "" else None
        layer = view(node, facts) if view is not None else None
        if layer is not None:
            found.append((node, layer))
    layers = [layer for _, layer in found]
    tied = _ties(layers)
    layers = [dataclasses.replace(layer, tied_with=tied[layer.name]) for layer in layers]
    by_name = {layer.name: layer for layer in layers}
    reasons = {
        layer.name: why_blocked(node, layer, by_name, facts) for (node, _), layer in zip(found, layers, strict=True)
    }
    return tuple(
        dataclasses.replace(layer, blocked=reasons[layer.name] or _blocked_partner(layer, reasons)) for layer in layers
    )


def _ties(layers: list[Layer]) -> dict[str, tuple[str, ...]]:
    """For each layer the names of the others with the same weight."""
    sharing: dict[str, list[str]] = {}
    for layer in layers:
        if layer.weight is not None:
            sharing.setdefault(layer.weight, []).append(layer.name)
    return {
        layer.name: tuple(name for name in sharing.get(layer.weight or "", ()) if name != layer.name)
        for layer in layers
    }


def _blocked_partner(layer: Layer, reasons: dict[str, str | None]) -> str | None:
    for name in layer.tied_with:
        if reasons[name] is not None:
            return f"It shares its weight with layer {name!r}, which cannot be quantized: {reasons[name]}"
    return None


def _convolution(node: ir.Node, facts: WeightFacts) -> Layer | None:
    return _windowed(node, facts, LayerKind.CONVOLUTION, output_channel_axis=0)


def _deconvolution(node: ir.Node, facts: WeightFacts) -> Layer | None:
    return _windowed(node, facts, LayerKind.DECONVOLUTION, output_channel_axis=1)


def _windowed(node: ir.Node, facts: WeightFacts, kind: LayerKind, *, output_channel_axis: int) -> Layer | None:
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None:
        return None
    shape = facts.stored_shape(weight)
    group = node.attributes.get_int("group", 1)
    declared = shape or facts.declared_shape(weight)
    kernel = tuple(node.attributes.get_ints("kernel_shape", declared[2:]))
    out_channels = 0
    if shape:
        out_channels = shape[1] * group if kind is LayerKind.DECONVOLUTION else shape[0]
    return Layer(
        name=str(node.name),
        op_type=node.op_type,
        kind=kind,
        activation=str(data.name),
        activation_index=0,
        channel_axis=1,
        output=str(node.outputs[0].name),
        weight=facts.initializer_name(weight),
        weight_index=1,
        weight_shape=shape,
        output_channel_axis=output_channel_axis,
        bias=_bias(node, out_channels),
        kernel_shape=kernel,
        dilations=tuple(node.attributes.get_ints("dilations", (1,) * len(kernel))),
        group=group,
    )


def _gemm(node: ir.Node, facts: WeightFacts) -> Layer | None:
    first, second = node.inputs[0], node.inputs[1]
    if first is None or second is None:
        return None
    trans_a = node.attributes.get_int("transA", 0) == 1
    trans_b = node.attributes.get_int("transB", 0) == 1
    # The constant comes second almost always; where both or none are constant, second is the weight, too.
    if facts.is_from_constants(first) and not facts.is_from_constants(second):
        data, weight, data_index, transpose = second, first, 1, True
        output_channel_axis, channel_axis = (1 if trans_a else 0), (1 if trans_b else 0)
    else:
        data, weight, data_index, transpose = first, second, 0, trans_a
        output_channel_axis, channel_axis = (0 if trans_b else 1), (0 if trans_a else 1)
    shape = facts.stored_shape(weight)
    return Layer(
        name=str(node.name),
        op_type=node.op_type,
        kind=LayerKind.INNER_PRODUCT,
        activation=str(data.name),
        activation_index=data_index,
        channel_axis=channel_axis,
        output=str(node.outputs[0].name),
        weight=facts.initializer_name(weight),
        weight_index=1 - data_index,
        weight_shape=shape,
        output_channel_axis=output_channel_axis,
        # Where the data comes second, Gemm adds its C along the rows, not the output channels.
        bias=_bias(node, shape[output_channel_axis]) if len(shape) == 2 and data_index == 0 else None,
        transpose=transpose,
        axis=1,
    )


def _matmul(node: ir.Node, facts: WeightFacts) -> Layer | None:
    first, second = node.inputs[0], node.inputs[1]
    if first is None or second is None or facts.is_from_constants(first) == facts.is_from_constants(second):
        return None
    data_index = 1 if facts.is_from_constants(first) else 0
    data, weight = (second, first) if data_index else (first, second)
    rank = data.shape.rank() if data.shape is not None else None
    # The axis of the data that is summed over, counted from the end; a vector has only the one.
    from_end = 2 if data_index == 1 and rank != 1 else 1
    shape = facts.stored_shape(weight)
    return Layer(
        name=str(node.name),
        op_type=node.op_type,
        kind=LayerKind.INNER_PRODUCT,
        activation=str(data.name),
        activation_index=data_index,
        channel_axis=-from_end if rank is None else rank - from_end,
        output=str(node.outputs[0].name),
        weight=facts.initializer_name(weight),
        weight_index=1 - data_index,
        weight_shape=shape,
        output_channel_axis=max(len(shape) - (2 if data_index == 1 else 1), 0),
        transpose=data_index == 1,
        axis=rank - 1 if rank is not None else None,
    )


def _average_pool(node: ir.Node, _facts: WeightFacts) -> Layer | None:
    data = node.inputs[0]
    if data is None:
        return None
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
    return Layer(
        name=str(node.name),
        op_type=node.op_type,
        kind=LayerKind.AVERAGE_POOL,
        activation=str(data.name),
        activation_index=0,
        channel_axis=1,
        output=str(node.outputs[0].name),
        kernel_shape=kernel,
        dilations=tuple(node.attributes.get_ints("dilations", (1,) * len(kernel))),
    )


def _bias(node: ir.Node, out_channels: int) -> str | None:
    """The node's third input where it is a constant float32 vector over the output channels."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = constant_tensor(value)
    if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    shapes = [(out_channels,)] + ([(1, out_channels)] if node.op_type == "Gemm" else [])
    return value.name if tensor.shape.numpy() in shapes else None


_VIEWS: dict[str, Callable[[ir.Node, WeightFacts], Layer | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "AveragePool": _average_pool,
}
