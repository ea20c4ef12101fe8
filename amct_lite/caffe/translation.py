"""The graph that a Caffe network is translated into, layer by layer."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.caffe.network import CaffeLayer
from amct_lite.errors import ModelError
from amct_lite.graph.constants import add_initializer

__all__ = ["OPSET_VERSION", "Shape", "Translation", "Translator", "unsupported"]

OPSET_VERSION = 17

_MAX_ELEMENTS = 2**31 - 1  # of a blob, by Caffe's own check

Shape = tuple[int | None, ...]
"""Sizes of a value; only the first, the batch, may be None: free."""


class Translation:
    """An ONNX graph in the making, with the shape of every value known.

    A translator asks for its bottoms with `value` and `shape`, adds nodes with `node`, constants with `constant` and
    `weight`, and binds each top with `bind`. Shapes follow Caffe's rules, not ONNX's, and are the translator's to give.

    Attributes:
        graph: The graph.
    """

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Shape],
        *,
        batch_symbol: str = "N",
        layer_names: Collection[str] = (),
        value_names: Collection[str] = (),
    ) -> None:
        """Start a graph.

        Args:
            name: The network's name.
            inputs: Input blob -> shape; a first size of None makes the batch free.
            batch_symbol: What a free batch is called.
            layer_names: Names that no made-up node name may take.
            value_names: Names that no made-up value name may take: those of all bottoms and tops.
        """
        self._values: dict[str, ir.Value] = {}
        self._shapes: dict[str, Shape] = {}
        self._batch_symbol = batch_symbol
        graph_inputs = []
        for blob, shape in inputs.items():
            value = ir.Value(name=blob, shape=self._declared(shape), type=ir.TensorType(ir.DataType.FLOAT))
            graph_inputs.append(value)
            self._values[blob], self._shapes[blob] = value, tuple(shape)
        self.graph = ir.Graph(graph_inputs, [], nodes=[], name=name or "caffe", opset_imports={"": OPSET_VERSION})
        self._layer: CaffeLayer | None = None
        self._marked = False
        self._node_names: set[str] = set()
        self._layer_names = frozenset(layer_names)
        self._value_names: set[str] = {*inputs, *value_names}
        self._shared: dict[tuple[str, str], tuple[npt.NDArray[np.float32], ir.Value]] = {}

    def add(self, layer: CaffeLayer, translator: "Translator") -> None:
        """Translate one layer, and mark its node: by the layer's name, and in its metadata by name and type.

        A translator that names no node itself means the one that makes the first top.
        """
        self._layer, self._marked = layer, False
        translator(self, layer)
        producer = self._values[layer.tops[0]].producer() if layer.tops else None
        if not self._marked and producer is not None:
            producer.name = self._node_name(layer.name, given=True)
            self._mark(producer, layer)
        self._layer = None

    def value(self, name: str) -> ir.Value:
        """The value of a bottom."""
        return self._values[name]

    def shape(self, name: str) -> Shape:
        """The shape of a bottom."""
        return self._shapes[name]

    def constant(self, layer: CaffeLayer, role: str, array: npt.ArrayLike) -> ir.Value:
        """A constant of a layer, named `{layer}.{role}`; float arrays are stored as float32."""
        values = np.asarray(array)
        if values.dtype.kind == "f":
            values = values.astype(np.float32)
        return add_initializer(self.graph, self._value_name(f"{layer.name}.{role}"), values)

    def blob(self, layer: CaffeLayer, index: int, shape: Sequence[int]) -> npt.NDArray[np.float32]:
        """A layer's weight, checked against the shape that Caffe gives it.

        Caffe's rule: the shapes are equal, but for the leading ones with which old files fill up four axes.

        Args:
            layer: The layer.
            index: Which of its blobs.
            shape: The shape that the prototxt makes of it.

        Returns:
            The weight in that shape.

        Raises:
            ModelError: There is no such blob, or its shape is another.
        """
        if not layer.blobs:
            raise unsupported(
                layer, "It has no weights.", "Give the caffemodel of this network along with the prototxt."
            )
        if index >= len(layer.blobs):
            raise unsupported(
                layer,
                f"It needs {index + 1} weight blobs, and the caffemodel has {len(layer.blobs)} for it.",
                "Check bias_term and the like, and that prototxt and caffemodel belong together.",
            )
        array = layer.blobs[index]
        if _without_leading_ones(array.shape) != _without_leading_ones(shape):
            raise unsupported(
                layer,
                f"Its weight blob {index} must have the shape {tuple(shape)}; the caffemodel's has {array.shape}.",
                "Check that prototxt and caffemodel belong together.",
            )
        return array.reshape(tuple(shape))

    def weight(self, layer: CaffeLayer, index: int, shape: Sequence[int], role: str) -> ir.Value:
        """A layer's weight as a constant; see `blob` and `constant`.

        Weights that share a name in the prototxt (`param { name: ... }`) and are equal become one constant.
        """
        array = self.blob(layer, index, shape)
        specs = layer.params.param
        key = (specs[index].name if index < len(specs) else "", role)
        if key[0] and key in self._shared:
            first, value = self._shared[key]
            if first.shape == array.shape and np.array_equal(first, array):
                return value
        value = self.constant(layer, role, array)
        if key[0]:
            self._shared.setdefault(key, (array, value))
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        num_outputs: int = 1,
        metadata: Mapping[str, str] | None = None,
    ) -> ir.Value:
        """Add a node and return its first output.

        Args:
            op_type: An operator of ONNX's own domain.
            inputs: Its inputs; None for an optional one that is left out.
            attributes: Its attributes.
            name: The Caffe layer's name for the one node that *is* the layer (the convolution, the inner product, the
                pooling); None for the others, which get names of their own.
            num_outputs: How many outputs it has.
            metadata: What to note at the node beside the layer's name and type.
        """
        node = ir.node(op_type, list(inputs), attributes=dict(attributes or {}), num_outputs=num_outputs)
        label = f"{self._layer.name}/{op_type}" if self._layer is not None else op_type
        node.name = self._node_name(name or label, given=name is not None)
        node.metadata_props.update(metadata or {})
        if name is not None and self._layer is not None:
            self._mark(node, self._layer)
        for value in node.outputs:
            value.name = self._value_name(label)
        self.graph.append(node)
        return node.outputs[0]

    def bind(self, top: str, value: ir.Value, shape: Shape) -> None:
        """Make a value a top's.

        Args:
            top: The top's value name.
            value: What the layer computes for it.
            shape: Its shape by Caffe's rules.

        Raises:
            ModelError: It has more elements than Caffe counts to, so something in the prototxt is wrong or forged.
        """
        if self._layer is not None and math.prod(1 if size is None else size for size in shape) > _MAX_ELEMENTS:
            raise unsupported(
                self._layer,
                f"Its top would have the shape {tuple(shape)}.",
                "Correct its sizes: that is beyond any memory.",
            )
        if value.name != top and (value.producer() is None or value.name in self._values):
            # A layer that passes its bottom through still gives the top a value of its own.
            value = self.node("Identity", [value])
        value.name = top
        value.shape, value.type = self._declared(shape), value.type or ir.TensorType(ir.DataType.FLOAT)
        self._values[top], self._shapes[top] = value, tuple(shape)

    def _declared(self, shape: Shape) -> ir.Shape:
        return ir.Shape([self._batch_symbol if size is None else size for size in shape])

    def _mark(self, node: ir.Node, layer: CaffeLayer) -> None:
        node.metadata_props.update(caffe_layer=layer.name, caffe_type=layer.type)
        self._marked = True

    def _node_name(self, wish: str, *, given: bool) -> str:
        name = wish
        if name in self._node_names or (not given and name in self._layer_names):
            name = _numbered(wish, self._node_names | self._layer_names)
        self._node_names.add(name)
        return name

    def _value_name(self, wish: str) -> str:
        name = wish if wish not in self._value_names else _numbered(wish, self._value_names)
        self._value_names.add(name)
        return name


Translator = Callable[[Translation, CaffeLayer], None]
"""Adds one layer to the graph; raises `unsupported` for parameters that it does not cover."""


def unsupported(layer: CaffeLayer, cause: str, remedy: str) -> ModelError:
    """The error for a layer that cannot be translated: its name, type, line, and what can be done."""
    where = "" if layer.line is None else f", line {layer.line}"
    return ModelError(f"{layer.type}{where}: {cause}", layer=layer.name, remedy=remedy)


def _numbered(wish: str, taken: Collection[str]) -> str:
    number = 1
    while f"{wish}_{number}" in taken:
        number += 1
    return f"{wish}_{number}"


def _without_leading_ones(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    while sizes and sizes[0] == 1:
        sizes.pop(0)
    return tuple(sizes)
