"""Balancing of a planned graph (AMCT's DMQ): the factors of layers that ask for it, and the graph that has them.

A balanced layer reads its input through a Mul by 1 / factor for each channel, and its weight is multiplied by the
factors. It is the same float function, and whatever follows (ranges, codebooks, exports) sees nothing but such a graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.caffe.model import CaffeModel
from amct_lite.calibration.statistics import Statistics
from amct_lite.errors import CalibrationError, RecordError
from amct_lite.graph.constants import add_initializer, replace_array, unique_value_name
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.weight_rows import from_channels, num_input_channels, to_channels
from amct_lite.types import Layer
from amct_lite.uniform.balancing import balance_factors
from amct_lite.uniform.equalization import input_ranges, magnitudes

__all__ = ["balance", "balanced_graph", "balanced_tensors"]

Float32Array = npt.NDArray[np.float32]


def balanced_tensors(plans: Sequence[LayerPlan]) -> list[str]:
    """The tensors that calibration has to observe channel by channel."""
    return list(dict.fromkeys(plan.layer.activation for plan in plans if plan.balances_input))


def balance(graph: PlannedGraph, statistics: Statistics) -> tuple[PlannedGraph, Statistics]:
    """Balance the layers that ask for it.

    Args:
        graph: The planned graph; it is not changed.
        statistics: What calibration saw of it.

    Returns:
        The balanced graph, and what calibration would have seen of that one.

    Raises:
        CalibrationError: A layer's input was not observed channel by channel, or has another number of channels.
    """
    plans = [plan for plan in graph.plans if plan.balances_input]
    if not plans:
        return graph, statistics
    factors = {plan.layer.name: tuple(map(float, _factors(graph.model, plan, statistics))) for plan in plans}
    balanced = balanced_graph(graph, factors)
    divided = {
        balanced.model.layer(plan.layer.name).activation: (plan.layer.activation, np.array(factors[plan.layer.name]))
        for plan in plans
    }
    return balanced, statistics.with_divided(divided)


def balanced_graph(graph: PlannedGraph, factors: Mapping[str, Sequence[float]]) -> PlannedGraph:
    """A graph in which layers are balanced with given factors.

    Args:
        graph: The planned graph; it is not changed, and returned where nothing is left to balance.
        factors: Layer -> its factors, one for each input channel; () for none. Layers that the graph has balanced
            already are left.

    Raises:
        RecordError: A layer has another number of input channels, or cannot be balanced.
    """
    model = graph.model
    wanted = [
        (layer, np.array(factors[layer.name], np.float32))
        for layer in model.layers
        if factors.get(layer.name) and layer.name not in model.balance_factors
    ]
    if not wanted:
        return graph
    for layer, values in wanted:
        _check(model, layer, values)
    balanced = _balanced_model(model, wanted)
    plans = tuple(replace(plan, layer=balanced.layer(plan.layer.name)) for plan in graph.plans)
    return replace(graph, model=balanced, plans=plans)


def _factors(model: Model, plan: LayerPlan, statistics: Statistics) -> Float32Array:
    layer = plan.layer
    assert plan.config is not None and plan.config.dmq_balancer_param is not None and layer.weight is not None
    activation = statistics.channel_maxima(layer)
    weight = input_ranges(magnitudes(to_channels(model.weight(layer.weight), layer)))
    if activation.size != weight.size:
        raise CalibrationError(
            f"Its input has {activation.size} channels in the calibration data, its weight takes {weight.size}.",
            layer=layer.name,
            remedy="Delete dmq_balancer_param.",
        )
    return balance_factors(activation, weight, plan.config.dmq_balancer_param)


def _check(model: Model, layer: Layer, factors: Float32Array) -> None:
    if layer.weight is None or layer.tied_with or layer.blocked or isinstance(model, CaffeModel):
        why = "a Caffe network" if isinstance(model, CaffeModel) else "a layer whose weight cannot take it up"
        raise RecordError(
            f"The record has a tensor_balance_factor for {why}.",
            layer=layer.name,
            remedy="Calibrate again without dmq_balancer_param.",
        )
    if factors.size != num_input_channels(layer):
        raise RecordError(
            f"The record has {factors.size} numbers in tensor_balance_factor, the layer has"
            f" {num_input_channels(layer)} input channels.",
            layer=layer.name,
            remedy="Use the model that the record was made for, or calibrate again.",
        )


def _balanced_model(model: Model, wanted: Sequence[tuple[Layer, Float32Array]]) -> Model:
    clone = model.clone()
    nodes = {node.name: node for node in clone.graph}
    divided: dict[tuple[str, int, bytes], ir.Value] = {}
    for layer, factors in wanted:
        node, weight = nodes[layer.name], layer.weight
        assert weight is not None
        key = (layer.activation, _axes_behind(layer), factors.tobytes())
        if key not in divided:
            divided[key] = _divide(clone.graph, node, layer, factors, nodes)
        node.replace_input_with(layer.activation_index, divided[key])
        channels = to_channels(model.weight(weight), layer)
        scaled = channels * factors.reshape(channels.shape[0], 1, -1, 1)
        replace_array(clone.graph.initializers[weight], from_channels(scaled, layer))
    return Model(
        clone,
        model.path,
        model.digest,
        model.size_bytes,
        equalized_layers=model.equalized_layers,
        unfused_layers=model.unfused_layers,
        balance_factors={**model.balance_factors, **{layer.name: tuple(map(float, f)) for layer, f in wanted}},
    )


def _divide(
    graph: ir.Graph, before: ir.Node, layer: Layer, factors: Float32Array, nodes: Mapping[str | None, ir.Node]
) -> ir.Value:
    """The layer's input times 1 / factor for each channel, in front of its node."""
    name = unique_value_name(graph, f"{layer.name}.balanced")
    while name in nodes:
        name += "_"
    reciprocals = (np.float32(1) / factors).reshape(-1, *(1 for _ in range(_axes_behind(layer))))
    scale = add_initializer(graph, unique_value_name(graph, f"{layer.name}.balance"), reciprocals)
    activation = before.inputs[layer.activation_index]
    assert activation is not None
    node = ir.node("Mul", [activation, scale], name=name)
    node.outputs[0].name = name
    node.outputs[0].type, node.outputs[0].shape = activation.type, activation.shape
    graph.insert_before(before, node)
    return node.outputs[0]


def _axes_behind(layer: Layer) -> int:
    """How many axes of the activation come behind that of its channels."""
    if layer.op_type == "Gemm":
        return 1 - layer.channel_axis
    if layer.op_type == "MatMul":
        return -layer.channel_axis - 1 if layer.axis is None else layer.axis - layer.channel_axis
    return len(layer.weight_shape) - 1 - layer.channel_axis
