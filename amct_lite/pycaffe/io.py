"""Images and mean files, by the names of `caffe.io`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.errors import FileError, OptionalDependencyError, ParameterError
from amct_lite.files.protos import message_class
from amct_lite.pycaffe.resizing import resize_image
from amct_lite.pycaffe.transformer import Transformer

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "blobproto_to_array",
    "load_image",
    "oversample",
    "read_mean",
    "resize_image",
]

Array = npt.NDArray[np.float32]


def load_image(filename: str | os.PathLike[str], color: bool = True) -> Array:
    """Load an image (needs Pillow: the extra `images`).

    Args:
        filename: The file.
        color: True for RGB; False for one channel, the luminance.

    Returns:
        float32 array of shape (height, width, 3 or 1), values in [0, 1].

    Raises:
        OptionalDependencyError: Pillow is not installed.
        FileError: The file cannot be read.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise OptionalDependencyError(
            "load_image needs Pillow.", remedy="Install it: pip install amct-lite[images]"
        ) from error
    try:
        with Image.open(filename) as image:
            if color:
                return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
            rgb = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
            # A grey image keeps its values; colour is weighted as in ITU-R BT.709, as pycaffe's reader does.
            grey = rgb[..., 0] if image.mode in ("1", "L") else rgb @ np.array([0.2125, 0.7154, 0.0721], np.float32)
            return np.asarray(grey[..., np.newaxis], np.float32)
    except OSError as error:
        raise FileError(
            f"The image '{filename}' cannot be read: {error}.", remedy="Check the path and the file."
        ) from error


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Array:
    """The numbers of a BlobProto message.

    Args:
        blob: The message, of whatever module.
        return_diff: Whether to return its gradient instead.

    Returns:
        float32 array in the message's shape; four axes where it is an old one.
    """
    if return_diff:
        values = np.array(blob.diff if len(blob.diff) else blob.double_diff, np.float32)
    else:
        values = np.array(blob.data if len(blob.data) else blob.double_data, np.float32)
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return values.reshape(blob.num, blob.channels, blob.height, blob.width)
    return values.reshape(tuple(blob.shape.dim))


def array_to_blobproto(arr: npt.ArrayLike, diff: npt.ArrayLike | None = None) -> Any:
    """A BlobProto message of an array, and of its gradient where given."""
    values = np.asarray(arr, np.float32)
    blob = message_class("caffe", "caffe.BlobProto")()
    blob.shape.dim.extend(values.shape)
    blob.data.extend(values.ravel().tolist())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float32).ravel().tolist())
    return blob


def read_mean(filename: str | os.PathLike[str]) -> Array:
    """Read a mean image (.binaryproto; not in pycaffe, where scripts parse it themselves).

    Returns:
        float32 array of shape (channels, height, width).

    Raises:
        FileError: The file cannot be read or is no mean image.
    """
    blob = message_class("caffe", "caffe.BlobProto")()
    try:
        blob.ParseFromString(Path(filename).read_bytes())
        values = blobproto_to_array(blob)
    except OSError as error:
        raise FileError(f"The mean file '{filename}' cannot be read: {error}.", remedy="Check the path.") from error
    except Exception as error:  # protobuf's DecodeError has no base of its own on every runtime
        raise FileError(
            f"'{filename}' is no mean image: {error}.", remedy="Give the .binaryproto of compute_image_mean."
        ) from error
    return values.reshape(values.shape[-3:]) if values.ndim > 3 else values


def oversample(images: Sequence[npt.ArrayLike], crop_dims: Sequence[int]) -> Array:
    """Cut ten crops from each image: the four corners and the middle, and the same mirrored.

    Args:
        images: Arrays of shape (height, width, channels), all of one size.
        crop_dims: Height and width of a crop.

    Returns:
        float32 array of shape (10 * images, height, width, channels): top left, top right, bottom left, bottom right,
        middle, then these five mirrored, for one image after the other.

    Raises:
        ParameterError: A crop is larger than the image.
    """
    stack = np.stack([np.asarray(image, np.float32) for image in images])
    height, width = (int(size) for size in crop_dims)
    down, right = stack.shape[1] - height, stack.shape[2] - width
    if down < 0 or right < 0:
        raise ParameterError(f"Crops of {height} x {width} do not fit images of {stack.shape[1]} x {stack.shape[2]}.")
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = np.stack([stack[:, y : y + height, x : x + width] for y, x in corners], axis=1)
    ten = np.concatenate([crops, crops[:, :, :, ::-1]], axis=1)
    return np.ascontiguousarray(ten.reshape(-1, height, width, stack.shape[3]))
