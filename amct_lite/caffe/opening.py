"""Reading Caffe's files as bytes, and telling what kind of file it is from its first bytes."""

import enum
from pathlib import Path

from amct_lite.errors import ModelError
from amct_lite.files.reading import read_bytes

__all__ = ["FileKind", "read_whole", "sniff"]

_SNIFFED_BYTES = 4096
# Text has none of these; a caffemodel's lengths and floats bring some within its first layers.
_BINARY = frozenset(range(32)) - set(b"\t\n\v\f\r\x1b") | {0x7F}
# First byte of a serialized NetParameter: the key of field 1 (name), 2 (layers), 3 (input), 6 (state) or 8
# (input_shape), each with a length, or of 100 (layer), whose key's first byte is 0xa2.
_NETWORK_KEYS = frozenset((0x0A, 0x12, 0x1A, 0x32, 0x42, 0xA2))


class FileKind(enum.Enum):
    """What a file's first bytes say it is, in words for a message."""

    TEXT = "text"
    CAFFEMODEL = "a caffemodel (weights)"
    HDF5 = "an HDF5 file"
    BINARY = "a binary file of another format"


def read_whole(path: Path, what: str) -> bytes:
    """The contents of a file.

    Args:
        path: The file.
        what: What it shall be, for messages: "prototxt" or "caffemodel".

    Raises:
        FileError: It is missing, is a folder, or cannot be read.
        ModelError: It is empty.
    """
    data = read_bytes(path, f"a {what}")
    if not data:
        raise ModelError(f"'{path}' is empty.", remedy=f"Pass a complete {what}; if it was copied, do that again.")
    return data


def sniff(data: bytes) -> FileKind:
    """Tell a file's kind from its first bytes.

    Example:
        >>> sniff(b'name: "LeNet"').name
        'TEXT'
    """
    start = data[:_SNIFFED_BYTES]
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return FileKind.HDF5
    if _BINARY.isdisjoint(start):
        return FileKind.TEXT
    return FileKind.CAFFEMODEL if start[0] in _NETWORK_KEYS else FileKind.BINARY
