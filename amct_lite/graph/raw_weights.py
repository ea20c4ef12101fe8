"""Weights of a parsed file as arrays: each is copied once, for everything that reads or writes it later.

Protobuf copies a tensor's bytes whenever they are looked at, and keeps its own as long as any part of the message
lives.
"""

import math

import numpy as np
import onnx
import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.weightless import SMALL_TENSOR_BYTES

__all__ = ["PLAIN_TYPES", "put_back_weights", "take_weights"]

PLAIN_TYPES = frozenset(
    (
        *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    )
)
"""Types whose raw data is what numpy holds, on machines of ONNX's byte order."""


def take_weights(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Take the big weights of the main graph out of a message.

    Args:
        proto: A parsed model, changed in place; use it no more.

    Returns:
        A message with tensors without elements in their place, which keeps no memory of the first; and the weights
        by name.

    Raises:
        ModelError: A weight's data is too short or too long.
    """
    weights: dict[str, ir.TensorProtocol] = {}
    for tensor in proto.graph.initializer:
        if tensor.data_type not in PLAIN_TYPES or tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        dtype, dims = ir.DataType(tensor.data_type), list(tensor.dims)
        size = math.prod(dims) * dtype.bitwidth // 8
        if size <= SMALL_TENSOR_BYTES or not tensor.HasField("raw_data") or min(dims) < 0:
            continue
        data = tensor.raw_data
        if len(data) != size:
            raise wrong_length(tensor.name, len(data), size)
        array = np.frombuffer(data, dtype.numpy().newbyteorder("<")).reshape(dims)
        weights[tensor.name] = ir.Tensor(
            array,
            dtype=dtype,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props={entry.key: entry.value for entry in tensor.metadata_props},
        )
        tensor.raw_data = b""
        del tensor.dims[:]
        tensor.dims.append(0)
    if not weights:
        return proto, weights
    slim = onnx.ModelProto()
    slim.ParseFromString(proto.SerializeToString())
    return slim, weights


def put_back_weights(graph: ir.Graph, weights: dict[str, ir.TensorProtocol]) -> None:
    """Give a graph made of a message of `take_weights` its weights, in place."""
    for name, tensor in weights.items():
        value = graph.initializers[name]
        value.const_value = tensor
        if not value.is_graph_input():
            value.shape = ir.Shape(tensor.shape.numpy())


def wrong_length(name: str, found: int, wanted: int) -> ModelError:
    """The error for raw data that does not fit its tensor."""
    return ModelError(
        f"Tensor {name!r} holds {found} bytes, but type and shape need {wanted}.",
        remedy="The file is damaged: copy or export the model again.",
    )
