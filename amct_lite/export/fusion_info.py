"""`{prefix}_quant.json`: which deploy operator came from which operators, for Ascend's accuracy-comparison tool.

An entry for each operator of the network that is left, with those that were folded into it, and for each quantizing
operator: AscendDequant and AscendAntiQuant give what their layer gave, AscendQuant stands for nothing in the network.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from amct_lite.caffe.inputs import is_input_layer
from amct_lite.caffe.model import CaffeModel
from amct_lite.graph.folded import names_of_origin

__all__ = ["DeployOperator", "caffe_operators", "fusion_info", "onnx_operators"]

_QUANTIZING = frozenset({"AscendQuant", "AscendDequant", "AscendAntiQuant"})
_CAFFE_QUANTIZING = frozenset({"Quant", "DeQuant", "AntiQuant"})


@dataclass(frozen=True)
class DeployOperator:
    """An operator of a deploy model.

    Attributes:
        name: Its name.
        op_type: Its type.
        origins: The operators of the float model that it stands for, in their order; () for one that is new.
    """

    name: str
    op_type: str
    origins: tuple[str, ...]


def fusion_info(name: str, operators: Iterable[DeployOperator]) -> dict[str, Any]:
    """AMCT's FusionInfo document.

    Args:
        name: The graph's name.
        operators: The deploy model's operators, in graph order.
    """
    return {"name": name, "graph": [{"op": [_entry(operator) for operator in operators]}]}


def onnx_operators(deploy: ir.Graph, source: ir.Graph) -> tuple[DeployOperator, ...]:
    """The operators of a deploy graph that are the network's or quantize.

    Args:
        deploy: The deploy graph.
        source: The normalised float graph that it was made from.
    """
    origins = {str(node.name): names_of_origin(node) for node in source}
    found = []
    for node in deploy:
        name = str(node.name)
        if name in origins:
            found.append(DeployOperator(name, node.op_type, origins[name]))
        elif node.op_type in _QUANTIZING:
            # AscendQuant reads what it changes; the others decode what stands in front of them.
            behind = None if node.op_type == "AscendQuant" or node.inputs[0] is None else node.inputs[0].producer()
            decoded = "" if behind is None else str(behind.name)
            found.append(DeployOperator(name, node.op_type, origins.get(decoded, ())))
    return tuple(found)


def caffe_operators(layers: Sequence[Any], model: CaffeModel) -> tuple[DeployOperator, ...]:
    """The layers of a deploy pair.

    Args:
        layers: LayerParameter messages in running order.
        model: The float network.
    """
    left = {layer.name for layer in layers}
    origins: dict[str, tuple[str, ...]] = {}
    for layer in model.network.layers:
        gone = layer.name not in left and layer.name in model.folded
        owner = model.folded[layer.name] if gone else layer.name
        origins[owner] = (*origins.get(owner, ()), layer.name)
    found = []
    for message in layers:
        if is_input_layer(message):
            continue
        stands_for = message.name
        if message.type in _CAFFE_QUANTIZING:
            stands_for = _layer_behind(message)
        found.append(DeployOperator(message.name, message.type, origins.get(stands_for, ())))
    return tuple(found)


def _layer_behind(message: Any) -> str:
    """The layer whose output a Caffe layer decodes; "" for one that quantizes or decodes an input."""
    if message.type == "DeQuant":
        return str(message.dequant_param.object_layer)
    in_place = message.type == "AntiQuant" and list(message.bottom) == list(message.top)
    return str(message.quant_param.object_layer) if in_place else ""


def _entry(operator: DeployOperator) -> dict[str, Any]:
    names = {"val_type": 1, "s": list(operator.origins)}
    entry: dict[str, Any] = {
        "name": operator.name,
        "type": operator.op_type,
        "attr": [{"key": "_datadump_original_op_names", "value": {"list": names}}],
    }
    if operator.origins:
        output = [
            {"key": "_datadump_origin_format", "value": {"s": "NCHW"}},
            {"key": "_datadump_data_type", "value": {"s": "DT_FLOAT"}},
            {"key": "_datadump_origin_output_index", "value": {"i": 0}},
            {"key": "_datadump_origin_name", "value": {"s": operator.origins[-1]}},
        ]
        entry["output_desc"] = [{"attr": output}]
    return entry
