"""How near the output of each layer, quantized alone and reading float tensors, is to its float output: measured.

The sums are taken inside the graph, so one run of it serves all layers and no feature map ever leaves it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from amct_lite.calibration.feeds import Feed
from amct_lite.diagnosis.twin_graph import twin_graph
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.quantized_layer import QuantizedLayer

__all__ = ["OutputSimilarity", "output_similarities"]

_PREFIX = "amct_lite.similarity/"


@dataclass(frozen=True)
class OutputSimilarity:
    """One layer's output, means over batches.

    Attributes:
        cosine: 0.5 + 0.5 * cosine with the float output: AMCT's "CosineSimilarity".
        mse: Mean squared error.
        relative_mse: The same divided by the mean square of the float output.
    """

    cosine: float
    mse: float
    relative_mse: float


def output_similarities(
    model: Model, layers: Sequence[QuantizedLayer], feeds: Sequence[Feed]
) -> dict[str, OutputSimilarity]:
    """Run samples once through the float network and, beside it, each layer quantized by itself.

    Args:
        model: The float network.
        layers: The quantized layers.
        feeds: The samples in batches.

    Returns:
        Layer name -> similarity, without layers that the fake-quant form computes with other operators.
    """
    twin, probes = twin_graph(model, fake_quant_model(model, layers))
    wanted = {layer.layer.name for layer in layers}
    graph = twin.graph
    values = {value.name: value for node in graph for value in node.outputs}
    graph.outputs.clear()
    sums: dict[str, list[str]] = {}
    for probe in probes:
        if probe.layer.name in wanted and probe.own is not None:
            outputs = _append_sums(graph, values[probe.reference], values[probe.own], probe.layer.name)
            graph.outputs.extend(outputs)
            sums[probe.layer.name] = [str(value.name) for value in outputs]
    if not sums:
        return {}
    RemoveUnusedNodesPass()(twin)
    # As the graph says it: onnxruntime's optimizations would merge layers, and quantize float ones again.
    session = create_session(twin, optimize=False)
    names = [name for of_layer in sums.values() for name in of_layer]
    inputs = {value.name for value in graph.inputs}
    runs = [
        dict(zip(names, session.run(names, {k: v for k, v in feed.items() if k in inputs}), strict=True))
        for feed in feeds
    ]
    return {
        layer: _mean([_of_batch(*(float(run[n]) for n in of_layer)) for run in runs])
        for layer, of_layer in sums.items()
    }


def _append_sums(graph: ir.Graph, reference: ir.Value, own: ir.Value, layer: str) -> list[ir.Value]:
    """Nodes for the sums over x ** 2, x' ** 2, x * x', (x' - x) ** 2 and 1, in float64."""

    def add(operator: str, *inputs: ir.Value, name: str, **attributes: int) -> ir.Value:
        full = f"{_PREFIX}{layer}/{name}"
        given = [ir.AttrInt64(key, value) for key, value in attributes.items()]
        node = ir.Node("", operator, list(inputs), given, outputs=[ir.Value(name=full)], name=full)
        graph.append(node)
        return node.outputs[0]

    double = int(ir.DataType.DOUBLE)
    x = add("Cast", reference, name="float", to=double)
    y = add("Cast", own, name="quantized", to=double)
    return [
        add("ReduceSumSquare", x, name="signal", keepdims=0),
        add("ReduceSumSquare", y, name="power", keepdims=0),
        add("ReduceSum", add("Mul", x, y, name="products"), name="product", keepdims=0),
        add("ReduceSumSquare", add("Sub", y, x, name="difference"), name="noise", keepdims=0),
        add("Size", x, name="count"),
    ]


def _of_batch(signal: float, power: float, product: float, noise: float, count: float) -> OutputSimilarity:
    if signal == 0.0:
        cosine = 1.0
    elif power == 0.0:
        cosine = 0.0
    else:
        cosine = 0.5 + 0.5 * product / math.sqrt(signal * power)
    return OutputSimilarity(cosine, noise / max(count, 1.0), noise / signal if signal > 0.0 else 0.0)


def _mean(batches: Sequence[OutputSimilarity]) -> OutputSimilarity:
    return OutputSimilarity(
        cosine=float(np.mean([batch.cosine for batch in batches])),
        mse=float(np.mean([batch.mse for batch in batches])),
        relative_mse=float(np.mean([batch.relative_mse for batch in batches])),
    )
