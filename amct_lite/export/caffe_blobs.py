"""Weights as Caffe's BlobProto messages, in floats and in integers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.files.protos import message_class

__all__ = ["float_blob", "int8_blob", "int32_blob"]

# Field 5 of BlobProto, packed: its key on the wire.
_DATA_KEY = bytes([5 << 3 | 2])
_OLD_SIZES = ("num", "channels", "height", "width")


def float_blob(values: npt.NDArray[np.float32], like: Any = None) -> Any:
    """A blob of floats.

    Args:
        values: The numbers.
        like: A blob of as many numbers whose shape is taken over, in the old form where it has that; None for the
            array's own shape.
    """
    blob = _shaped(values, like)
    data = np.ascontiguousarray(values, "<f4").tobytes()
    # Many times faster than a list of Python floats, and a caffemodel has hundreds of millions of them.
    blob.MergeFromString(_DATA_KEY + _varint(len(data)) + data)
    return blob


def int8_blob(values: npt.NDArray[np.int8], like: Any = None) -> Any:
    """A blob of AMCT's int8 weights; arguments as for `float_blob`."""
    blob = _shaped(values, like)
    blob.int8_data = np.ascontiguousarray(values, np.int8).tobytes()
    return blob


def int32_blob(values: npt.NDArray[np.int32], like: Any = None) -> Any:
    """A blob of AMCT's int32 biases; arguments as for `float_blob`."""
    blob = _shaped(values, like)
    blob.int32_data.extend(values.ravel().tolist())
    return blob


def _shaped(values: npt.NDArray[Any], like: Any) -> Any:
    blob = message_class("caffe", "caffe.BlobProto")()
    if like is not None and any(like.HasField(name) for name in _OLD_SIZES):
        for name in _OLD_SIZES:
            setattr(blob, name, getattr(like, name))
    else:
        known = like is not None and like.HasField("shape")
        blob.shape.dim.extend(like.shape.dim if known else values.shape)
    return blob


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
