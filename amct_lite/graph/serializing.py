"""A graph as the bytes of an ONNX file, with each weight copied once.

protobuf would copy weights three times: into a message, and while its buffer grows. A length-delimited field may be put
together by hand, and fields of a message may come in any order.
"""

import sys
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.raw_weights import PLAIN_TYPES
from amct_lite.graph.wire_format import key

__all__ = ["Parts", "initializer_parts", "message_parts", "take_weights_out", "to_bytes"]

Parts = list[bytes | memoryview]
"""Bytes in pieces, so that weights need not be copied into one."""

_MAX_MESSAGE_BYTES = 2**31 - 1

_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = onnx.TensorProto.RAW_DATA_FIELD_NUMBER


def to_bytes(model: ir.Model) -> bytes:
    """Serialise a model; the same model gives the same bytes.

    Args:
        model: A model without references to external data, or with ones that are to be kept.

    Raises:
        ModelError: The model cannot be serialised.
    """
    try:
        return b"".join(message_parts(*take_weights_out(model.clone())))
    except Exception as error:  # onnx_ir and protobuf raise many kinds
        raise ModelError(
            f"The model cannot be serialised: {error}.",
            remedy="If it is too big, save it with a smaller external_threshold_bytes.",
        ) from error


def take_weights_out(copy: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Part a model from the main graph's weights; `message_parts` puts them together again.

    Args:
        copy: A self-contained model of which the caller is the only owner; it is changed.

    Returns:
        The message without them, and tensors by initializer.
    """
    weights = {}
    for name, value in list(copy.graph.initializers.items()):
        # Others have more to say about them than a tensor does: a type, or a quantization annotation.
        if value.const_value is not None and value.type is None and not (value.is_graph_input() or value.meta):
            weights[name] = value.const_value
            del copy.graph.initializers[name]
    return ir.to_proto(copy), weights


def message_parts(proto: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol]) -> Parts:
    """A model's bytes in pieces.

    Args:
        proto: The message without weights.
        weights: Tensors by initializer.

    Raises:
        ValueError: They are too many for a protobuf message.
    """
    graph = proto.graph.SerializeToString(deterministic=True)
    head = onnx.ModelProto()
    head.CopyFrom(proto)
    head.ClearField("graph")
    initializers = [part for name, tensor in weights.items() for part in initializer_parts(name, tensor)]
    size = len(graph) + sum(map(len, initializers))
    start = head.SerializeToString(deterministic=True)
    if len(start) + size > _MAX_MESSAGE_BYTES:
        raise ValueError(f"{size} bytes are more than the 2 GiB of a protobuf message")
    return [start, key(_GRAPH, size), graph, *initializers]


def initializer_parts(name: str, tensor: ir.TensorProtocol) -> Iterator[bytes | memoryview]:
    """A field of GraphProto in pieces."""
    if isinstance(tensor, ir.Tensor) and tensor.dtype in PLAIN_TYPES and sys.byteorder == "little":
        # Everything but the numbers.
        empty = onnx.TensorProto(name=name, data_type=tensor.dtype, dims=tensor.shape.numpy())
        if tensor.doc_string:
            empty.doc_string = tensor.doc_string
        for prop, value in tensor.metadata_props.items():
            empty.metadata_props.add(key=prop, value=value)
        head = empty.SerializeToString(deterministic=True)
        data = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data
        raw = key(_RAW_DATA, len(data))
        yield key(_INITIALIZER, len(head) + len(raw) + len(data))
        yield head
        yield raw
        yield data
        return
    tensor.name = name
    whole = ir.to_proto(tensor).SerializeToString(deterministic=True)
    yield key(_INITIALIZER, len(whole))
    yield whole
