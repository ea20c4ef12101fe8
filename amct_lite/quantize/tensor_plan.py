"""Which tensors between layers are quantized too, so that whole chains of operators run on integers.

A layer's input has a grid anyway. ONNX Runtime takes the integer kernel of a convolution only where its output is
quantized as well, and of Add, Mul or GlobalAveragePool where all they read and write is. So the outputs of
convolutions and of such operators are quantized where anything reads them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from amct_lite.codebook.level_type import LevelType
from amct_lite.files.config import FloatActivationParams, FloatWeightParams, LayerConfig
from amct_lite.graph.constants import constant_tensor
from amct_lite.graph.model import Model
from amct_lite.graph.operator_inputs import operator_input
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.types import LayerKind

__all__ = ["plan_tensors"]

# The quantizer behind them does their work where its grid ends where they clip.
_CLIPPING = frozenset({"Clip", "Relu"})
# They only select or move values, so the grid of what they write serves for what they read.
_PASSING = frozenset({"Concat", "Flatten", "MaxPool", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def plan_tensors(model: Model, plans: Sequence[LayerPlan], operators: Collection[str]) -> tuple[LayerPlan, ...]:
    """Choose the inputs of operators that are quantized beside those of layers.

    Args:
        model: The float model.
        plans: What is done to its layers.
        operators: The types of the operators that have integer kernels there, for example "Add".

    Returns:
        A plan for each such input, in graph order, of a layer without weights whose name is "{operator}:{index}".
    """
    if not operators or not any(_runs_on_integers(plan) for plan in plans):
        return ()
    return _Planner(model, plans, operators).plan()


def _runs_on_integers(plan: LayerPlan) -> bool:
    """Whether the layer is a convolution with integer kernel: inner products take float outputs, too."""
    floats = isinstance(plan.weight_params, FloatWeightParams)
    integers = not floats and (plan.codebook is None or plan.codebook.level_type is LevelType.INT8)
    return plan.quantizes_input and integers and plan.layer.kind is LayerKind.CONVOLUTION


@dataclass(frozen=True)
class _Reading:
    """A place where a tensor is read."""

    node: ir.Node
    index: int


class _Planner:
    def __init__(self, model: Model, plans: Sequence[LayerPlan], operators: Collection[str]) -> None:
        self._graph = model.ir.graph
        self._operators = operators
        self._layers = {plan.layer.name: plan for plan in plans}
        self._default = next(plan for plan in plans if _runs_on_integers(plan))
        self._dividers = _balancing_nodes(model)
        self._integer_values: set[ir.Value] = set()
        self._sources: list[ir.Node] = []
        for node in self._graph:
            if self._is_source(node):
                self._sources.append(node)
                self._integer_values.update(node.outputs)
            elif self._is_one_of(node, _CLIPPING | _PASSING) and any(v in self._integer_values for v in node.inputs):
                self._integer_values.update(node.outputs)

    def plan(self) -> tuple[LayerPlan, ...]:
        chosen: dict[ir.Value, None] = {}
        for node in self._sources:
            if node.name not in self._layers:
                chosen.update(dict.fromkeys(value for value in node.inputs if value is not None))
            value = self._behind_clipping(node.outputs[0])
            if not self._is_settled(value):
                chosen[value] = None
        wanted = {value for value in chosen if not self._is_an_output(value)}
        return tuple(
            self._plan_input(node, index)
            for node in self._graph
            if node.name not in self._layers and node not in self._dividers
            for index, value in enumerate(node.inputs)
            if value is not None and value in wanted and not self._is_read_in_bodies(value)
            # A layer of that very name has the key in the record.
            if f"{node.name}:{index}" not in self._layers
        )

    def _is_one_of(self, node: ir.Node, types: Collection[str]) -> bool:
        return node.domain == "" and node.op_type in types and len(node.outputs) == 1

    def _is_source(self, node: ir.Node) -> bool:
        """Whether a node computes on integers, so that its output must be quantized."""
        plan = self._layers.get(str(node.name))
        if plan is not None:
            return _runs_on_integers(plan)
        if not self._is_one_of(node, self._operators):
            return False
        variable = all(
            value is not None and constant_tensor(value) is None and value.dtype == ir.DataType.FLOAT
            for value in node.inputs
        )
        return variable and any(value in self._integer_values for value in node.inputs)

    def _readings(self, value: ir.Value) -> list[_Reading]:
        return [_Reading(use.node, use.idx) for use in value.uses()]

    def _is_read_in_bodies(self, value: ir.Value) -> bool:
        return any(reading.node.graph is not self._graph for reading in self._readings(value))

    def _behind_clipping(self, value: ir.Value) -> ir.Value:
        readings = self._readings(value)
        if len(readings) == 1 and not value.is_graph_output() and self._is_one_of(readings[0].node, _CLIPPING):
            return self._behind_clipping(readings[0].node.outputs[0])
        return value

    def _is_an_output(self, value: ir.Value) -> bool:
        """Whether the network returns these values, moved at most: eight bits are too few for many a score."""
        moved = (reading.node for reading in self._readings(value) if self._is_one_of(reading.node, _PASSING))
        return value.is_graph_output() or any(self._is_an_output(node.outputs[0]) for node in moved)

    def _is_settled(self, value: ir.Value) -> bool:
        """Whether quantizers stand behind a value already, or none can."""
        readings = self._readings(value)
        if value.is_graph_output() or not readings or self._is_read_in_bodies(value):
            return True
        if all(self._is_one_of(reading.node, _PASSING) for reading in readings):
            outputs = [reading.node.outputs[0] for reading in readings]
            return all(not output.is_graph_output() and self._is_settled(output) for output in outputs)
        return all(self._is_quantized_reading(reading) for reading in readings)

    def _is_quantized_reading(self, reading: _Reading) -> bool:
        if reading.node in self._dividers:
            return self._is_settled(reading.node.outputs[0])
        plan = self._layers.get(str(reading.node.name))
        if plan is not None:
            return plan.quantizes_input and reading.index == plan.layer.activation_index
        return self._is_source(reading.node)

    def _plan_input(self, node: ir.Node, index: int) -> LayerPlan:
        """The grid of a layer that reads the same tensor, else one found as the first layer's is."""
        layer = operator_input(node, index)
        like = next(
            (p for p in self._layers.values() if p.quantizes_input and p.layer.activation == layer.activation),
            self._default,
        )
        assert like.config is not None
        params = like.config.activation_quant_params
        assert not isinstance(params, FloatActivationParams)
        config = LayerConfig(activation_quant_params=params.model_copy(update={"nuq": None}))
        return LayerPlan(layer, config, with_offset=like.with_offset)


def _balancing_nodes(model: Model) -> set[ir.Node]:
    """What divides the inputs of balanced layers: they are quantized behind it, and a grid in front is no use."""
    nodes = {node.name: node for node in model.ir.graph}
    found = set()
    for name in model.balance_factors:
        divided = nodes[name].inputs[model.layer(name).activation_index]
        producer = None if divided is None else divided.producer()
        assert producer is not None
        found.add(producer)
    return found
