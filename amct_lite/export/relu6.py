"""Relu6 becomes Relu in deploy forms where the quantizer behind it cannot hold 6 (the rule of Ascend's compiler).

The quantizer then cuts off at its own end, so nothing changes: (127 - offset) / scale < 6, `scale` being the stored
reciprocal of the step, says that 6 lies beyond the highest level.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from amct_lite.graph.constants import constant_tensor

__all__ = ["relax_relu6", "relax_relu6_layers"]


def relax_relu6(graph: ir.Graph) -> None:
    """Turn each Clip from 0 to 6 between AscendDequant and such AscendQuant nodes into Relu.

    Args:
        graph: A deploy graph; it is changed.
    """
    for node in graph:
        if node.domain != "" or node.op_type != "Clip" or not _clips_at_6(node):
            continue
        source, output = node.inputs[0], node.outputs[0]
        before = None if source is None else source.producer()
        readers = [use.node for use in output.uses()]
        if before is None or before.op_type != "AscendDequant" or output.is_graph_output() or not readers:
            continue
        if all(_ends_below_6_node(reader) for reader in readers):
            node.resize_inputs(1)
            node.op_type = "Relu"


def relax_relu6_layers(layers: Sequence[Any]) -> None:
    """Turn each ReLU6 layer between DeQuant and such Quant layers into ReLU.

    Args:
        layers: A deploy pair's layers in running order; they are changed.
    """
    for place, layer in enumerate(layers):
        if layer.type != "ReLU6" or layer.relu6_param.negative_slope != 0:
            continue
        before = next((other for other in reversed(layers[:place]) if layer.bottom[0] in other.top), None)
        readers = _readers(layers[place + 1 :], layer.top[0])
        if before is None or before.type != "DeQuant" or not readers:
            continue
        if all(reader.type == "Quant" and _ends_below_6(reader) for reader in readers):
            layer.type = "ReLU"
            layer.ClearField("relu6_param")


def _clips_at_6(node: ir.Node) -> bool:
    bounds = [constant_tensor(value) for value in node.inputs[1:3]]
    return len(bounds) == 2 and [None if b is None else float(b.numpy()) for b in bounds] == [0.0, 6.0]


def _ends_below_6_node(node: ir.Node) -> bool:
    if node.op_type != "AscendQuant":
        return False
    return _holds_less_than_6(node.attributes.get_float("scale"), node.attributes.get_float("offset"))


def _ends_below_6(quant: Any) -> bool:
    return _holds_less_than_6(quant.quant_param.scale, int(np.frombuffer(quant.quant_param.offset, np.int8)[0]))


def _holds_less_than_6(scale: float, offset: float) -> bool:
    return (127 - offset) / scale < 6


def _readers(layers: Sequence[Any], blob: str) -> list[Any]:
    """The layers that read a blob before another one writes it anew."""
    found = []
    for layer in layers:
        if blob in layer.bottom:
            found.append(layer)
        if blob in layer.top:
            break
    return found
