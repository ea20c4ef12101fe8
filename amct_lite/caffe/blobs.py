"""Weights of a caffemodel as arrays, by layer name."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from amct_lite.caffe.opening import FileKind, read_whole, sniff
from amct_lite.errors import ModelError
from amct_lite.files.protos import message_class

__all__ = ["blob_array", "blob_shape", "read_caffemodel", "trained_blobs"]

_LOG = logging.getLogger(__name__)
_MAX_AXES = 32  # Caffe's kMaxBlobAxes
# In order of precedence; Caffe takes the doubles where it finds some.
_DATA_FIELDS = {"double_data": np.float64, "data": np.float32, "int32_data": np.int32, "uint64_data": np.uint64}
_VIEWED = {"data": "<f4", "double_data": "<f8"}
_REMEDY = "Pass the complete caffemodel that belongs to the prototxt; if it was downloaded or copied, do that again."


def read_caffemodel(path: Path) -> Any:
    """Read a caffemodel as a NetParameter of whatever form; unknown fields are kept in it.

    Raises:
        FileError: The file is missing or cannot be read.
        ModelError: It is no complete caffemodel.
    """
    data = read_whole(path, "caffemodel")
    kind = sniff(data)
    if kind is FileKind.TEXT:
        raise ModelError(
            f"'{path}' is text, probably a prototxt, not a caffemodel.",
            remedy="Pass the prototxt first and the caffemodel second.",
        )
    if kind is FileKind.HDF5:
        raise ModelError(
            f"'{path}' holds its weights in HDF5, which is not supported.",
            remedy="Load it with Caffe and save it as a binary caffemodel: net.copy_from(...), net.save(...).",
        )
    network = message_class("caffe", "caffe.NetParameter")()
    try:
        network.ParseFromString(data)
    except (DecodeError, RecursionError, MemoryError) as error:
        raise ModelError(f"'{path}' is no complete caffemodel: {error}.", remedy=_REMEDY) from error
    if not network.layer and not network.layers:
        raise ModelError(f"'{path}' is no caffemodel: it has no layers.", remedy=_REMEDY)
    return network


def trained_blobs(weights: Any, names: set[str]) -> Iterator[tuple[str, Any]]:
    """The layers of a caffemodel that a network has, with their BlobProto messages.

    Layers are matched by name and nothing else, as Caffe's CopyTrainedLayersFrom does it; of two layers of one name
    the later wins there and here.

    Args:
        weights: A NetParameter of any form: `layer`, `layers`, or `layers { layer {...} }`.
        names: The network's layers.

    Yields:
        A layer's name and its repeated `blobs`, in the file's order, only where there are some.
    """
    for layer in (*weights.layers, *weights.layer):
        holder = layer
        if layer.DESCRIPTOR.name == "V1LayerParameter" and layer.HasField("layer"):
            holder = layer.layer
        name = holder.name or layer.name
        if name not in names:
            _LOG.debug("the prototxt has no layer %r of the caffemodel: ignored", name)
        elif holder.blobs:
            yield name, holder.blobs
        elif layer.blobs:
            yield name, layer.blobs


def blob_shape(blob: Any) -> tuple[int, ...] | None:
    """The shape that a BlobProto declares: four axes in old files; None where it declares none.

    Example:
        >>> blob_shape(message_class("caffe", "caffe.BlobProto")(num=1, channels=1, height=2, width=3))
        (1, 1, 2, 3)
    """
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim[: _MAX_AXES + 1]) if blob.HasField("shape") else None


def blob_array(blob: Any, *, layer: str, index: int) -> npt.NDArray[Any]:
    """A blob's values in its declared shape, in the type that the file holds them in.

    Args:
        blob: A BlobProto.
        layer: Its layer, for messages.
        index: Which of the layer's blobs it is, for messages.

    Returns:
        float32 array for `data`; float64 for `double_data`, int8, int32 and uint64 for AMCT's. It may not be writable.

    Raises:
        ModelError: The number of values is not what the shape says, or the shape is impossible.
    """
    values = _values(blob)
    shape = blob_shape(blob)
    if shape is None:
        return values
    if len(shape) > _MAX_AXES or any(size < 0 for size in shape):
        raise ModelError(
            f"blob {index} of the caffemodel has the impossible shape {_short(shape)}.", layer=layer, remedy=_REMEDY
        )
    if math.prod(shape) != values.size:
        raise ModelError(
            f"blob {index} of the caffemodel holds {values.size} values, but its shape {_short(shape)} "
            f"asks for {math.prod(shape)}.",
            layer=layer,
            remedy=_REMEDY,
        )
    return values.reshape(shape)


def _values(blob: Any) -> npt.NDArray[Any]:
    if blob.int8_data:
        return np.frombuffer(blob.int8_data, np.int8)
    for name, dtype in _DATA_FIELDS.items():
        data = getattr(blob, name)
        if len(data):
            return _packed(blob, name, data, dtype)
    return np.empty(0, np.float32)


def _packed(blob: Any, name: str, data: Any, dtype: Any) -> npt.NDArray[Any]:
    """A repeated field as an array, without visiting each value from Python.

    Today's protobuf hands the whole field to numpy (7.36 does, 6.33 does not). For older ones, the blob is written out
    and read again through a message that declares the packed field as bytes, which is what it is in the file: two
    copies, 20 times faster than a Python float for each value.
    """
    if hasattr(data, "__array__") or name not in _VIEWED:
        return np.asarray(data, dtype)
    view = message_class("caffe", "caffe.BlobBytes").FromString(blob.SerializeToString())
    return np.frombuffer(getattr(view, name), _VIEWED[name])


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= 8 else f"({', '.join(map(str, shape[:4]))}, ... more than {len(shape) - 1} axes)"
