"""A float network and its quantized twin in one graph, with each quantized layer once more, fed by the float network.

One run of it gives, for each layer, the float output, the output in the quantized network (with all that went wrong
before it), and the outputs of the layer alone: quantized, with only its weights quantized, and with only its input.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.constants import all_graphs
from amct_lite.graph.model import Model
from amct_lite.types import Layer

__all__ = ["Probe", "twin_graph"]

_PREFIX = "amct_lite.quantized/"


@dataclass(frozen=True)
class Probe:
    """Where one layer is observed: names of tensors of the twin graph.

    Attributes:
        layer: The layer.
        reference: Its output in the float network.
        whole: Its output in the quantized network.
        own: Its output where it alone is quantized; None where the quantized network computes it otherwise.
        by_weight: Its output where only its weight and bias are quantized; None as for `own`.
        by_input: Its output where only its input is quantized; None as for `own`.
    """

    layer: Layer
    reference: str
    whole: str
    own: str | None = None
    by_weight: str | None = None
    by_input: str | None = None

    @property
    def outputs(self) -> dict[str, str]:
        """What is compared with the reference: kind -> tensor."""
        found = {"whole": self.whole, "own": self.own, "by_weight": self.by_weight, "by_input": self.by_input}
        return {kind: name for kind, name in found.items() if name is not None}


def twin_graph(model: Model, quantized: ir.Model) -> tuple[ir.Model, tuple[Probe, ...]]:
    """Put a quantized network into a copy of its float one.

    Layers are found again by the names of their outputs, which every form of amct_lite keeps, as do most tools.

    Args:
        model: The float network.
        quantized: Any network made of it in operators that onnxruntime has; it is not changed.

    Returns:
        The graph and a probe for each layer that was found again.

    Raises:
        ModelError: The quantized network has other inputs or another opset, or no layer is found again.
    """
    twin = model.clone()
    if twin.opset_imports.get("") != quantized.opset_imports.get(""):
        raise ModelError(
            f"The float network has opset {twin.opset_imports.get('')}, the quantized one"
            f" {quantized.opset_imports.get('')}.",
            remedy="Convert the float network with onnx.version_converter before it is quantized.",
        )
    floats = {value.name: value for value in (*twin.graph.inputs, *(v for node in twin.graph for v in node.outputs))}
    nodes = {str(node.name): node for node in twin.graph}
    moved = _move_in(twin, quantized)
    slices = _Slices(twin.graph, floats, moved)
    probes = []
    for layer in model.layers:
        whole = moved.get(layer.output)
        if whole is None:
            continue
        own = slices.variants(layer, nodes[layer.name], whole) or (None, None, None)
        probes.append(Probe(layer, layer.output, str(whole.name), *own))
    if not probes:
        raise ModelError(
            "The quantized network has no tensor by the name of a layer's output of the float one.",
            remedy="Compare a network with what was made of it; amct_lite's fake-quant form keeps all names.",
        )
    return twin, tuple(probes)


def _move_in(twin: ir.Model, quantized: ir.Model) -> dict[str, ir.Value]:
    """Move the nodes of a copy into the twin's graph, under a prefix; returns its values by their old names."""
    copy = quantized.clone()
    inputs = {value.name: value for value in twin.graph.inputs}
    found: dict[str, ir.Value] = {}
    for value in list(copy.graph.inputs):
        if value.name not in inputs:
            raise ModelError(
                f"The quantized network has the input {value.name!r}, which the float one does not have.",
                remedy="Compare a network with what was made of it.",
            )
        value.replace_all_uses_with(inputs[value.name])
        found[str(value.name)] = inputs[value.name]
    for name, value in list(copy.graph.initializers.items()):
        tensor = _renamed(value.const_value, _PREFIX + name)
        constant = ir.Value(name=_PREFIX + name, type=value.type, shape=value.shape, const_value=tensor)
        value.replace_all_uses_with(constant)
        twin.graph.register_initializer(constant)
        found[name] = constant
    copy.graph.outputs.clear()
    for node in list(copy.graph):
        for value in node.outputs:
            if value.name:
                found[value.name] = value
                value.name = _PREFIX + value.name
        node.name = _PREFIX + (node.name or "")
        copy.graph.remove(node)
        twin.graph.append(node)
    for domain, version in quantized.opset_imports.items():
        twin.opset_imports.setdefault(domain, version)
    for identifier, function in copy.functions.items():
        twin.functions.setdefault(identifier, function)
    return found


def _renamed(tensor: ir.TensorProtocol | None, name: str) -> ir.TensorProtocol | None:
    """The same numbers under another name, which a tensor carries itself."""
    if tensor is None:
        return None
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(tensor.numpy(), shape=ir.Shape(tensor.shape.numpy()), name=name)
    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(lambda: ir.Tensor(tensor.numpy(), dtype=tensor.dtype), tensor.dtype, shape, name=name)


class _Slices:
    """Copies of quantized layers that read float tensors."""

    def __init__(self, graph: ir.Graph, floats: Mapping[str | None, ir.Value], moved: Mapping[str, ir.Value]) -> None:
        self._graph = graph
        self._floats = floats
        self._old_names = {value: name for name, value in moved.items()}
        self._variable = _fed_by(graph, graph.inputs)
        self._copies: dict[ir.Value, ir.Value] = {}

    def variants(self, layer: Layer, node: ir.Node, whole: ir.Value) -> tuple[str, str, str] | None:
        """The layer alone: quantized, its weights only, its input only; None where it is computed otherwise."""
        quantized = whole.producer()
        while quantized is not None and quantized.op_type in ("QuantizeLinear", "DequantizeLinear"):
            # Its output is quantized as well: that is no part of what the layer itself computes.
            source = quantized.inputs[0]
            quantized = None if source is None else source.producer()
        if quantized is None or (quantized.domain, quantized.op_type) != (node.domain, node.op_type):
            return None
        own: list[ir.Value | None] = []
        for value in quantized.inputs:
            copied = None if value is None else self._read_float(value)
            if value is not None and copied is None:
                return None
            own.append(copied)
        index = layer.activation_index
        data, floating = own[index], list(node.inputs)
        return (
            self._like(quantized, own, f"{layer.name}/own"),
            self._like(quantized, [*own[:index], node.inputs[index], *own[index + 1 :]], f"{layer.name}/by_weight"),
            self._like(node, [*floating[:index], data, *floating[index + 1 :]], f"{layer.name}/by_input"),
        )

    def _like(self, node: ir.Node, inputs: Iterable[ir.Value | None], name: str) -> str:
        return str(self._append(node, inputs, _PREFIX + name)[0].name)

    def _append(self, node: ir.Node, inputs: Iterable[ir.Value | None], name: str) -> list[ir.Value]:
        outputs = [ir.Value(name=f"{name}/{index}") for index in range(len(node.outputs))]
        copy = ir.Node(node.domain, node.op_type, list(inputs), node.attributes.values(), outputs=outputs, name=name)
        self._graph.append(copy)
        return outputs

    def _read_float(self, value: ir.Value) -> ir.Value | None:
        """A value of the quantized network as it is where the float network is what it reads."""
        if value not in self._variable or value.is_graph_input():
            return value
        name = self._old_names.get(value)
        if name in self._floats:
            return self._floats[name]
        if value not in self._copies:
            node = value.producer()
            if node is None or _bodies(node):
                return None
            inputs = [None if v is None else self._read_float(v) for v in node.inputs]
            if any(v is not None and w is None for v, w in zip(node.inputs, inputs, strict=True)):
                return None
            outputs = self._append(node, inputs, f"{_PREFIX}float/{node.name}")
            self._copies.update(zip(node.outputs, outputs, strict=True))
        return self._copies[value]


def _fed_by(graph: ir.Graph, sources: Iterable[ir.Value]) -> set[ir.Value]:
    """The values that depend on some others; what only constants make is not among them."""
    fed = set(sources)
    for node in graph:
        inner = (value for body in _bodies(node) for deep in all_graphs(body) for n in deep for value in n.inputs)
        read = (*node.inputs, *inner)
        if any(value in fed for value in read if value is not None):
            fed.update(node.outputs)
    return fed


def _bodies(node: ir.Node) -> list[ir.Graph]:
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
