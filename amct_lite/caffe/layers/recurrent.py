"""Translators: LSTM and RNN, as an ONNX Scan over the time steps.

ONNX's own LSTM and RNN know no `cont`, which starts a new sequence in the middle of a blob. Caffe keeps the last state
from one forward pass to the next and uses it where cont is not 0 at the first step; a graph has no memory, so its first
step starts from zeros, or from the state that expose_hidden passes in. The two agree wherever a pass starts a sequence.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from amct_lite.caffe.layers.axes import free_batch, reshape, volume
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Shape, Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]


class _Step:
    """What one time step computes: the body of a Scan."""

    def __init__(self, name: str, states: Sequence[tuple[str, Shape]], inputs: Sequence[tuple[str, Shape]]) -> None:
        """Start a step with states and with the step's slices of the inputs, each with a name and a shape."""
        values = [
            ir.Value(name=f"{name}.{role}", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
            for role, shape in (*states, *inputs)
        ]
        self.graph = ir.Graph(values, [], nodes=[], name=f"{name}.step")
        self.states, self.inputs = values[: len(states)], values[len(states) :]
        self._name, self._count = name, 0

    def node(self, op_type: str, inputs: Sequence[ir.Value], num_outputs: int = 1, **attributes: int) -> list[ir.Value]:
        """Add a node and return its outputs."""
        node = ir.node(op_type, list(inputs), attributes=attributes, num_outputs=num_outputs)
        for output in node.outputs:
            self._count += 1
            output.name, output.type = f"{self._name}.step{self._count}", ir.TensorType(ir.DataType.FLOAT)
        self.graph.append(node)
        return list(node.outputs)

    def total(self, terms: Sequence[ir.Value]) -> ir.Value:
        """The sum of values."""
        result = terms[0]
        for term in terms[1:]:
            (result,) = self.node("Add", [result, term])
        return result

    def product(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """The values multiplied number by number."""
        return self.node("Mul", [left, right])[0]

    def matmul(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """The matrices multiplied."""
        return self.node("MatMul", [left, right])[0]


_Compute = Callable[[_Step, Sequence[ir.Value], int], tuple[list[ir.Value], ir.Value]]
"""(step, weights, whether there is a static input) -> (new states, output)."""


def _lstm(translation: Translation, layer: CaffeLayer) -> None:
    """LSTM: gates i, f, o by sigmoid and g by tanh; c' = cont f c + i g; h' = o tanh(c'); the output is h'.

    The gates are W_x x + b + W_h (cont h), with W_static x_static where a third bottom gives it.
    """
    _recurrent(translation, layer, ("h", "c"), 4, _lstm_step)


def _lstm_step(step: _Step, weights: Sequence[ir.Value], static: int) -> tuple[list[ir.Value], ir.Value]:
    (hidden, cell), (x, cont) = step.states, step.inputs
    terms = [step.matmul(x, weights[0]), weights[1]]
    if static:
        terms.append(step.matmul(weights[-1], weights[2]))
    terms.append(step.matmul(step.product(hidden, cont), weights[2 + static]))
    i, f, o, g = step.node("Split", [step.total(terms)], num_outputs=4, axis=1)
    i, f, o = (step.node("Sigmoid", [gate])[0] for gate in (i, f, o))
    (g,) = step.node("Tanh", [g])
    kept = step.product(step.product(f, cont), cell)
    cell = step.total([kept, step.product(i, g)])
    hidden = step.product(o, step.node("Tanh", [cell])[0])
    return [hidden, cell], hidden


def _rnn(translation: Translation, layer: CaffeLayer) -> None:
    """RNN: h' = tanh(W_h (cont h) + W_x x + b), with W_static x_static; the output is tanh(W_o h' + b_o)."""
    _recurrent(translation, layer, ("h",), 1, _rnn_step)


def _rnn_step(step: _Step, weights: Sequence[ir.Value], static: int) -> tuple[list[ir.Value], ir.Value]:
    (hidden,), (x, cont) = step.states, step.inputs
    terms = [step.matmul(x, weights[0]), weights[1]]
    if static:
        terms.append(step.matmul(weights[-1], weights[2]))
    terms.append(step.matmul(step.product(hidden, cont), weights[2 + static]))
    (hidden,) = step.node("Tanh", [step.total(terms)])
    output = step.total([step.matmul(hidden, weights[3 + static]), weights[4 + static]])
    return [hidden], step.node("Tanh", [output])[0]


def _recurrent(
    translation: Translation, layer: CaffeLayer, states: tuple[str, ...], gates: int, compute: _Compute
) -> None:
    """Bottoms: x (time x batch x ...), cont (time x batch), maybe x_static (batch x ...), maybe the first states."""
    params = layer.params.recurrent_param
    exposed = len(states) if params.expose_hidden else 0
    static = len(layer.bottoms) - 2 - exposed
    shape, size = translation.shape(layer.bottoms[0]), params.num_output
    if static not in (0, 1) or len(shape) < 2 or len(layer.tops) != 1 + exposed:
        raise unsupported(
            layer,
            f"{len(layer.bottoms)} bottoms and {len(layer.tops)} tops do not fit expose_hidden.",
            "Give x, cont, at most one static input, and the states with expose_hidden only.",
        )
    steps, batch, features = shape[0], shape[1], volume(shape[2:])
    static_shape = translation.shape(layer.bottoms[2]) if static else ()
    if batch is None or None in static_shape:
        raise free_batch(layer, "it takes the number of sequences from the second axis.")
    rows = gates * size
    wanted = [(rows, features), (rows,), *([(rows, volume(static_shape[1:]))] if static else []), (rows, size)]
    if gates == 1:
        wanted += [(size, size), (size,)]
    weights = _weights(translation, layer, wanted)
    if static:
        inputs = translation.value(layer.bottoms[2])
        weights.append(reshape(translation, layer, inputs, (static_shape[0], volume(static_shape[1:]))))
    x = reshape(translation, layer, translation.value(layer.bottoms[0]), (steps, batch, features))
    cont = reshape(translation, layer, translation.value(layer.bottoms[1]), (steps, batch, 1))
    if exposed:
        bottoms = layer.bottoms[2 + static :]
        start = [reshape(translation, layer, translation.value(bottom), (batch, size)) for bottom in bottoms]
    else:
        zeros = np.zeros((batch, size), np.float32)
        start = [translation.constant(layer, f"{state}_0", zeros) for state in states]
    step = _Step(layer.name, [(s, (batch, size)) for s in states], [("x", (batch, features)), ("cont", (batch, 1))])
    ends, output = compute(step, weights, static)
    # An ONNX graph does not return one value twice, and LSTM's output is its state.
    step.graph.outputs.extend([*ends, *step.node("Identity", [output])])
    last = translation.node(
        "Scan", [*start, x, cont], {"body": step.graph, "num_scan_inputs": 2}, num_outputs=len(states) + 1
    )
    node = last.producer()
    assert node is not None
    translation.bind(layer.tops[0], node.outputs[-1], (steps, batch, size))
    for top, value in zip(layer.tops[1:], node.outputs, strict=False):
        translation.bind(top, reshape(translation, layer, value, (1, batch, size)), (1, batch, size))


def _weights(translation: Translation, layer: CaffeLayer, shapes: Sequence[tuple[int | None, ...]]) -> list[ir.Value]:
    """The layer's matrices, transposed for a product from the right, and its biases."""
    arrays = [translation.blob(layer, i, [size or 0 for size in shape]) for i, shape in enumerate(shapes)]
    return [translation.constant(layer, f"weight{i}", np.ascontiguousarray(a.T)) for i, a in enumerate(arrays)]


TRANSLATORS: dict[str, Translator] = {"LSTM": _lstm, "RNN": _rnn}
