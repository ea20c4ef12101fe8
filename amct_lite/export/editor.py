"""Edits on a clone of a model's graph: constants and nodes with unique names, put where they are first needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.graph.constants import add_initializer, all_graphs
from amct_lite.graph.model import Model
from amct_lite.graph.passes.opset import MINIMUM_OPSET, raise_opset
from amct_lite.types import Layer

__all__ = ["GraphEditor"]


LastStep = TypeVar("LastStep", bound=Callable[["GraphEditor"], None])


class GraphEditor:
    """A clone of a float model that an export form edits.

    Attributes:
        ir: The clone.
        graph: Its graph.
        opset_version: Its version of ONNX's own operators.
    """

    def __init__(self, model: Model, minimum_opset: int = MINIMUM_OPSET) -> None:
        self.ir: ir.Model = raise_opset(model.clone(), minimum_opset)
        self.graph: ir.Graph = self.ir.graph
        self.opset_version: int = self.ir.opset_imports.get("", 0)
        self._nodes = {node.name: node for node in self.graph}
        self._names = _all_value_names(self.graph)
        self._shared: dict[str, ir.Value] = {}
        self._last_steps: dict[str, Callable[[GraphEditor], None]] = {}

    def node_of(self, layer: Layer) -> ir.Node:
        """The node of a layer."""
        return self._nodes[layer.node_name]

    def constant(self, name: str, array: npt.NDArray[np.generic] | np.generic) -> ir.Value:
        """A new initializer; its name gets a suffix where it is taken."""
        return add_initializer(self.graph, self.unique_name(name), np.asarray(array))

    def prefix(self, wish: str) -> str:
        """A name that nothing begins with yet: `wish`, or `wish1`, `wish2` ..."""
        number, name = 0, wish
        while any(taken.startswith(name) for taken in self._names):
            number += 1
            name = f"{wish}{number}"
        return name

    def shared(self, key: str, make: Callable[[], ir.Value]) -> ir.Value:
        """What several layers use: made at the first call with a key, found again at later ones.

        Args:
            key: Says what it is.
            make: Makes it of constants alone; its nodes must stand where all users come later, as before `first`.
        """
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def at_end(self, key: str, make: Callable[[], LastStep]) -> LastStep:
        """What is done when all layers have been edited: made at the first call with a key, found again at later ones.

        Args:
            key: Says what it is.
            make: Makes what `finish` will call.
        """
        if key not in self._last_steps:
            self._last_steps[key] = make()
        return cast(LastStep, self._last_steps[key])

    @property
    def first(self) -> ir.Node:
        """The node that stands first in the graph."""
        return self.graph[0]

    def insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """A new node with one output, just before another node.

        Returns:
            Its output.
        """
        unique = self.unique_name(name)
        node = ir.node(op_type, list(inputs), attributes=dict(attributes or {}), name=unique)
        node.outputs[0].name = unique
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def split(
        self, before: ir.Node, value: ir.Value, sizes: ir.Value, parts: Sequence[ir.Value], name: str, axis: int
    ) -> None:
        """A new Split, just before a node, with outputs that are used already."""
        unique = self.unique_name(name)
        for number, part in enumerate(parts):
            part.name = self.unique_name(f"{name}.{number}")
        attributes = ir.convenience.convert_attributes({"axis": axis})
        self.graph.insert_before(before, ir.Node("", "Split", [value, sizes], attributes, outputs=parts, name=unique))

    def dequantize(
        self,
        before: ir.Node,
        values: npt.NDArray[np.generic],
        scales: npt.NDArray[np.float32],
        name: str,
        axis: int | None,
    ) -> ir.Value:
        """A constant under DequantizeLinear; with one scale it is a scalar, with several it runs along an axis."""
        shaped = scales if axis is not None else scales.reshape(())
        scale = self.constant(f"{name}.scale", shaped)
        zero_point = self.constant(f"{name}.zero_point", np.zeros(shaped.shape, values.dtype))
        attributes = {} if axis is None else {"axis": axis}
        inputs = [self.constant(name, values), scale, zero_point]
        return self.insert(before, "DequantizeLinear", inputs, f"{name}.dequant", attributes)

    def insert_after_output(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        attributes: Mapping[str, Any],
    ) -> ir.Value:
        """A new node behind another one, which takes over its output's name and consumers.

        Returns:
            The new node's output, known by the name that the other node's output had.
        """
        old = node.outputs[0]
        new_node = ir.node(op_type, [old, *inputs], attributes=dict(attributes), name=self.unique_name(name))
        new = new_node.outputs[0]
        consumers = [(use.node, use.idx) for use in old.uses() if use.node is not new_node]
        for consumer, index in consumers:
            consumer.replace_input_with(index, new)
        for index, output in enumerate(self.graph.outputs):
            if output is old:
                self.graph.outputs[index] = new
        new.name, old.name = old.name, self.unique_name(f"{name}.input")
        new.shape, new.type = old.shape, old.type
        self.graph.insert_after(node, new_node)
        return new

    def finish(self) -> None:
        """Do what waits for the end, and remove the float weights that nothing uses any more."""
        for step in self._last_steps.values():
            step(self)
        if self._last_steps:
            self._last_steps.clear()
            self.graph.sort()
        outputs = set(self.graph.outputs)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and value not in outputs:
                del self.graph.initializers[name]

    def unique_name(self, name: str) -> str:
        """A name that nothing has yet: the one given, with a number behind it where needed."""
        candidate, number = name, 0
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate


def _all_value_names(graph: ir.Graph) -> set[str]:
    """Names of values and nodes, in subgraphs too: a name must not shadow another one there."""
    names: set[str] = set()
    for inner in all_graphs(graph):
        names.update(value.name for value in inner.inputs if value.name)
        names.update(inner.initializers)
        for node in inner:
            names.update(value.name for value in node.outputs if value.name)
            if node.name:
                names.add(node.name)
    return names
