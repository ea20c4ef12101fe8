"""MatMul's bias on Ascend: the constant that a following Add adds becomes int32, in front of AscendDequant.

MatMul itself takes no bias. AMCT moves the dequantization behind the Add, so that the device adds in the accumulator.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.errors import ParameterError
from amct_lite.export.editor import GraphEditor
from amct_lite.graph.constants import constant_tensor
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.uniform.bias import quantize_bias

__all__ = ["BiasAdd", "find_bias_add", "to_integer_add"]


@dataclass(frozen=True)
class BiasAdd:
    """An Add of a constant over the output channels.

    Attributes:
        node: The Add.
        index: Which of its inputs the constant is.
        bias: int32 array of the constant's shape, at scale_w * scale_d.
    """

    node: ir.Node
    index: int
    bias: npt.NDArray[np.int32]


def find_bias_add(node: ir.Node, layer: QuantizedLayer) -> BiasAdd | None:
    """The Add that is a MatMul's bias; None where there is none, or the bias does not fit into int32.

    Args:
        node: The layer's node.
        layer: The layer in integers.
    """
    output = node.outputs[0]
    uses = list(output.uses())
    # With the weight as first operand the channels are rows, along which no vector is added.
    if node.op_type != "MatMul" or layer.layer.weight_index != 1 or layer.weight is None or layer.grid is None:
        return None
    # Shifts are found on the product alone.
    if layer.shift_bit:
        return None
    if len(uses) != 1 or output.is_graph_output():
        return None
    add = uses[0].node
    if add.op_type != "Add" or add.domain != "" or add.graph is not node.graph:
        return None
    index = 1 - uses[0].idx
    tensor = constant_tensor(add.inputs[index])
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    values = tensor.numpy()
    channels = layer.weight.shape[-1]
    if values.shape[-1:] != (channels,) or values.size != channels or values.ndim > _rank(output):
        return None
    try:
        return BiasAdd(add, index, quantize_bias(values.ravel(), layer.scale_w, layer.grid.scale).reshape(values.shape))
    except ParameterError:
        return None


def to_integer_add(editor: GraphEditor, found: BiasAdd, layer: QuantizedLayer) -> None:
    """Give the Add its int32 constant."""
    found.node.replace_input_with(found.index, editor.constant(f"{layer.layer.name}.bias.quantized", found.bias))
    found.node.outputs[0].type = ir.TensorType(ir.DataType.INT32)


def _rank(value: ir.Value) -> int:
    """The known number of axes; 1 where it is unknown, so that the Add surely makes no axis of its own."""
    return value.shape.rank() if value.shape is not None else 1
