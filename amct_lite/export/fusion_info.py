"""`{prefix}_quant.json`: which deploy operator came from which layer, for Ascend's accuracy-comparison tool."""

from collections.abc import Sequence
from typing import Any

from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import Layer

__all__ = ["fusion_info"]


def fusion_info(name: str, layers: Sequence[QuantizedLayer]) -> dict[str, Any]:
    """AMCT's FusionInfo document.

    Args:
        name: The graph's name.
        layers: The quantized layers, in graph order.
    """
    return {"name": name, "graph": [{"op": [_operator(layer.layer) for layer in layers]}]}


def _operator(layer: Layer) -> dict[str, Any]:
    origin = {"key": "_datadump_original_op_names", "value": {"list": {"val_type": 1, "s": [layer.name]}}}
    output = [
        {"key": "_datadump_origin_format", "value": {"s": "NCHW"}},
        {"key": "_datadump_data_type", "value": {"s": "DT_FLOAT"}},
        {"key": "_datadump_origin_output_index", "value": {"i": 0}},
        {"key": "_datadump_origin_name", "value": {"s": layer.name}},
    ]
    return {"name": layer.name, "type": layer.op_type, "attr": [origin], "output_desc": [{"attr": output}]}
