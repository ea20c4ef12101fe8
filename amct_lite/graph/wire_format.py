"""The big weights of an ONNX file where they lie in its bytes, so that protobuf neither parses nor copies them.

A message is a sequence of fields, each a key (field number and wire type) and a value; values of wire type 2 begin with
their length. Source: protobuf.dev/programming-guides/encoding.
"""

import mmap
from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError

__all__ = ["key", "metadata_of", "split_weights"]

_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_NAME = onnx.TensorProto.NAME_FIELD_NUMBER
_RAW_DATA = onnx.TensorProto.RAW_DATA_FIELD_NUMBER

_METADATA = onnx.ModelProto.METADATA_PROPS_FIELD_NUMBER

_LENGTH_DELIMITED = 2


def split_weights(content: bytes | mmap.mmap, smallest_bytes: int) -> tuple[bytes, dict[str, memoryview]]:
    """Part a serialised ModelProto from the raw data of the main graph's big initializers.

    Args:
        content: The bytes of an .onnx file, or the file mapped.
        smallest_bytes: Raw data of more bytes than this is taken out.

    Returns:
        The message with empty raw data in those places, and views of `content` by initializer. Nothing is taken out
        where `content` is damaged, which parsing it then tells.
    """
    view = memoryview(content)
    weights: dict[str, memoryview] = {}
    try:
        parts: list[bytes | memoryview] = []
        for number, start, value, end in _fields(view, 0, len(view)):
            if number == _GRAPH:
                graph = list(_graph_parts(view, value, end, smallest_bytes, weights))
                parts += [key(_GRAPH, sum(map(len, graph))), *graph]
            else:
                parts.append(view[start:end])
    except (IndexError, ValueError):
        return bytes(view), {}
    return b"".join(parts), weights


def metadata_of(content: bytes | mmap.mmap) -> dict[str, str]:
    """The metadata of a serialised ModelProto, without looking at its graph; none where `content` is damaged."""
    with memoryview(content) as view:
        try:
            found = [
                bytes(view[value:end]) for number, _, value, end in _fields(view, 0, len(view)) if number == _METADATA
            ]
            entries = [onnx.StringStringEntryProto.FromString(data) for data in found]
        except (IndexError, ValueError, DecodeError):
            return {}
    return {entry.key: entry.value for entry in entries}


def key(field_number: int, length: int) -> bytes:
    """What comes before a field of wire type 2: its key, and its length."""
    return _varint(field_number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _graph_parts(
    view: memoryview, start: int, end: int, smallest_bytes: int, weights: dict[str, memoryview]
) -> Iterator[bytes | memoryview]:
    """A GraphProto's fields without big raw data, which goes to `weights`."""
    for number, field, value, after in _fields(view, start, end):
        if number != _INITIALIZER or after - value <= smallest_bytes:
            yield view[field:after]
            continue
        tensor = list(_fields(view, value, after))
        raw = [view[begin:stop] for n, _, begin, stop in tensor if n == _RAW_DATA]
        names = [bytes(view[begin:stop]).decode() for n, _, begin, stop in tensor if n == _NAME]
        # What comes twice, or under one name, is for protobuf to make sense of.
        if len(raw) != 1 or len(names) != 1 or len(raw[0]) <= smallest_bytes or names[0] in weights:
            yield view[field:after]
            continue
        weights[names[0]] = raw[0]
        others = (view[begin:stop] for n, begin, _, stop in tensor if n != _RAW_DATA)
        rest: list[bytes | memoryview] = [key(_RAW_DATA, 0), *others]
        yield key(_INITIALIZER, sum(map(len, rest)))
        yield from rest


def _fields(view: memoryview, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, start, start of the value behind its length, and end of each field of a message.

    Raises:
        IndexError: The message is cut off.
        ValueError: It is no message.
    """
    while position < end:
        start = position
        tag, position = _read_varint(view, position)
        value = position
        match tag & 7:
            case 0:
                _, position = _read_varint(view, position)
            case 1:
                position += 8
            case 2:
                length, value = _read_varint(view, position)
                position = value + length
            case 5:
                position += 4
            case wire_type:
                raise ValueError(f"wire type {wire_type}")
        if position > end:
            raise IndexError("a field goes beyond its message")
        yield tag >> 3, start, value, position


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and the position behind it."""
    number = shift = 0
    while True:
        byte = view[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
