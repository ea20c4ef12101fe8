"""Weights of a file as arrays, copied once for everything that reads or writes them later.

Protobuf copies a tensor's bytes whenever they are looked at, and keeps its own as long as any part of the message
lives.
"""

import math
import mmap

import numpy as np
import onnx
import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.weightless import SMALL_TENSOR_BYTES
from amct_lite.graph.wire_format import split_weights

__all__ = ["PLAIN_TYPES", "parse_model", "put_back_weights", "wrong_length"]

PLAIN_TYPES = frozenset(
    (
        *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    )
)
"""Types whose raw data is what numpy holds, on machines of ONNX's byte order."""


def parse_model(content: bytes | mmap.mmap) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Parse a model, all but its big weights.

    Args:
        content: The bytes of an .onnx file, or the file mapped; not needed any more once this returns.

    Returns:
        The message, with tensors without elements in place of the main graph's big weights; and these by name.

    Raises:
        DecodeError: It is no message.
        ModelError: A weight's data is too short or too long.
    """
    skeleton, found = split_weights(content, SMALL_TENSOR_BYTES)
    proto = onnx.ModelProto()
    proto.ParseFromString(skeleton)
    weights: dict[str, ir.TensorProtocol] = {}
    for tensor in proto.graph.initializer:
        data = found.get(tensor.name)
        if data is None:
            continue
        dims, external = list(tensor.dims), tensor.data_location == onnx.TensorProto.EXTERNAL
        if tensor.data_type not in PLAIN_TYPES or external or min(dims, default=0) < 0:
            tensor.raw_data = bytes(data)
            continue
        dtype = ir.DataType(tensor.data_type)
        size = math.prod(dims) * dtype.bitwidth // 8
        if len(data) != size:
            raise wrong_length(tensor.name, len(data), size)
        # A copy, since in the file numbers lie at any address.
        array = np.frombuffer(data, dtype.numpy().newbyteorder("<")).reshape(dims).copy()
        array.flags.writeable = False
        weights[tensor.name] = ir.Tensor(
            array,
            dtype=dtype,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props={entry.key: entry.value for entry in tensor.metadata_props},
        )
        del tensor.dims[:]
        tensor.dims.append(0)
    return proto, weights


def put_back_weights(graph: ir.Graph, weights: dict[str, ir.TensorProtocol]) -> None:
    """Give a graph made of a message of `parse_model` its weights, in place."""
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
