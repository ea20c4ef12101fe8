"""Quantize early: move a tensor's grid up through operators that only select or move values.

ONNX Runtime turns a convolution into its integer kernel only where QuantizeLinear follows it directly (or behind
Relu or Clip). Between most layers of a real network stand MaxPool, Concat, Pad or Reshape. They commute with
quantization, which is monotone and maps zero to zero, so quantizing their inputs on the same grid gives the same
numbers: a second QuantizeLinear on values that already lie on its grid changes nothing.
"""

from collections.abc import Callable

import onnx_ir as ir

from amct_lite.export.editor import GraphEditor
from amct_lite.graph.constants import constant_tensor

__all__ = ["quantize_early"]

_Grid = tuple[float, int, ir.DataType]


def quantize_early(editor: GraphEditor) -> None:
    """Insert QuantizeLinear and DequantizeLinear in front of the operators that commute with a quantizer behind them.

    Args:
        editor: A QDQ graph; a tensor is moved past only where all that use it are quantizers on one grid.
    """
    dequantized: dict[tuple[ir.Value, _Grid], ir.Value] = {}
    pending = [node.outputs[0] for node in editor.graph if node.op_type == "QuantizeLinear"]
    while pending:
        quantizer = _producer(pending.pop())
        value, scale, zero_point = (_present(quantizer.inputs[index]) for index in range(3))
        grid = _grid_of(quantizer)
        producer = value.producer()
        if producer is None or grid is None or not _commutes(producer) or not _only_quantized_on(value, grid):
            continue
        for index in _moved_inputs(producer):
            source = _present(producer.inputs[index])
            if constant_tensor(source) is not None:
                continue
            if (source, grid) not in dequantized:
                name = f"{producer.name}.early.{index}"
                # Next to the source: another operator may read the same pair, and stand before this one.
                place = _behind(editor, source)
                quantized = editor.insert(place, "QuantizeLinear", [source, scale, zero_point], f"{name}.quant")
                inputs = [quantized, scale, zero_point]
                dequantized[source, grid] = editor.insert(place, "DequantizeLinear", inputs, f"{name}.dequant")
                pending.append(quantized)
            producer.replace_input_with(index, dequantized[source, grid])


def _behind(editor: GraphEditor, value: ir.Value) -> ir.Node:
    """The first node behind a value's producer; the first of all behind a graph input."""
    nodes = iter(editor.graph)
    maker = value.producer()
    if maker is not None:
        next(node for node in nodes if node is maker)
    return next(nodes)


def _pads_with_zero(node: ir.Node) -> bool:
    mode = node.attributes.get_string("mode", "constant")
    if mode != "constant":
        return True
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return True
    tensor = constant_tensor(value)
    return tensor is not None and not tensor.numpy().any()


def _has_one_output(node: ir.Node) -> bool:
    return len(node.outputs) == 1


# Operator -> when it commutes with quantization to one grid.
_COMMUTING: dict[str, Callable[[ir.Node], bool]] = {
    "Concat": _has_one_output,
    "Flatten": _has_one_output,
    "MaxPool": _has_one_output,
    "Pad": _pads_with_zero,
    "Reshape": _has_one_output,
    "Squeeze": _has_one_output,
    "Transpose": _has_one_output,
    "Unsqueeze": _has_one_output,
}


def _commutes(node: ir.Node) -> bool:
    rule = _COMMUTING.get(node.op_type)
    return node.domain == "" and rule is not None and rule(node)


def _moved_inputs(node: ir.Node) -> range:
    """Inputs that carry values; the others are shapes, axes and the like."""
    return range(len(node.inputs)) if node.op_type == "Concat" else range(1)


def _only_quantized_on(value: ir.Value, grid: _Grid) -> bool:
    users = [node for node, _ in value.uses()]
    return not value.is_graph_output() and all(
        node.op_type == "QuantizeLinear" and _grid_of(node) == grid for node in users
    )


def _grid_of(quantizer: ir.Node) -> _Grid | None:
    """The grid as numbers, so that equal grids of several layers are one; None where it is not constant."""
    scale, zero_point = (constant_tensor(quantizer.inputs[index]) for index in (1, 2))
    if scale is None or zero_point is None or scale.size != 1:
        return None
    return float(scale.numpy()), int(zero_point.numpy()), zero_point.dtype


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
