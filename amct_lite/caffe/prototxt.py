"""A prototxt: from its text to a NetParameter, with the line of every layer."""

import difflib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from amct_lite.caffe.opening import FileKind, read_whole, sniff
from amct_lite.errors import ModelError
from amct_lite.files.protos import message_class

__all__ = ["Prototxt", "read_prototxt"]

_MAX_DEPTH = 100  # protobuf's own limit for binary messages; no Caffe message nests deeper than 8
_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r,;]+|\#[^\n]*)|(?P<line>\n)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<mark>[{}<>\[\]:])|(?P<other>[^\s{}<>\[\]:,;\#"']+|.)"""
)
_MAX_WARNINGS = 20
_REMEDY = "Check the file around that line; it may have been cut short or edited."


@dataclass(frozen=True)
class Prototxt:
    """A parsed prototxt.

    Attributes:
        proto: Its NetParameter, as written.
        lines: Line, from 1, of each entry of `proto.layer`, or of `proto.layers` for a network of old form; None where
            it is not known.
    """

    proto: Any
    lines: tuple[int | None, ...]


def read_prototxt(path: Path, *, strict: bool = True) -> Prototxt:
    """Read and parse a prototxt.

    Args:
        path: The file.
        strict: Whether a field that the schema does not have is an error; otherwise it is a warning, and left out. The
            same holds for bytes that are not UTF-8.

    Raises:
        FileError: The file is missing or cannot be read.
        ModelError: It is no network in text form; the message has the line.
    """
    text = _decode(read_whole(path, "prototxt"), path, strict)
    scan = _scan(text, path)
    _report_unknown(scan, path, strict)
    proto = message_class("caffe", "caffe.NetParameter")()
    try:
        text_format.Parse(text, proto, allow_unknown_field=not strict)
    except text_format.ParseError as error:
        where = f"{path}:{error.GetLine()}:{error.GetColumn()}" if error.GetLine() else str(path)
        cause = re.sub(r"^\d+:\d+ : ", "", str(error)).rstrip(".")
        raise ModelError(f"{where}: {_shorten(cause)}.", remedy=_REMEDY) from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise ModelError(f"'{path}' is no network in text form: {_shorten(str(error))}.", remedy=_REMEDY) from error
    if not proto.layer and not proto.layers:
        raise ModelError(
            f"'{path}' has no layers.",
            remedy="Pass a network's prototxt; a solver's names the network's file in `net`.",
        )
    lines, count = scan.lines["layer" if proto.layer else "layers"], len(proto.layer or proto.layers)
    # Text format also allows a list, `layer: [{...}, {...}]`, which nobody writes: then we do without lines.
    return Prototxt(proto, tuple(lines) if len(lines) == count else (None,) * count)


def _report_unknown(scan: "_Scan", path: Path, strict: bool) -> None:
    """Refuse the first unknown field, or warn about the first few."""
    solver = message_class("caffe", "caffe.SolverParameter").DESCRIPTOR.fields_by_name
    outer = [name for _, message, name in scan.unknown if message.name == "NetParameter"]
    if outer and outer[0] in solver and not any(scan.lines.values()):
        raise ModelError(
            f"'{path}' is a solver, not a network.", remedy="Pass the prototxt that it names in `net` or `test_net`."
        )
    for line, message, name in scan.unknown[:_MAX_WARNINGS]:
        nearest = difflib.get_close_matches(name, list(message.fields_by_name), n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        cause = f"{path}:{line}: {message.name} has no field {_shorten(name)!r}.{hint}"
        if strict:
            raise ModelError(
                cause,
                remedy="Correct the name or delete the field; InferenceSession and pycaffe.Net also take strict=False.",
            )
        warnings.warn(f"{cause} It is left out.", stacklevel=4)


def _decode(data: bytes, path: Path, strict: bool) -> str:
    kind = sniff(data)
    if kind is FileKind.CAFFEMODEL:
        raise ModelError(
            f"'{path}' is a caffemodel (weights), not a prototxt.",
            remedy="Pass the prototxt first and the caffemodel second.",
        )
    if kind is not FileKind.TEXT:
        raise ModelError(f"'{path}' is {kind.value}, not a prototxt.", remedy="Pass the network's .prototxt file.")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        text = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
        if not any(_replaced_outside_comment(row) for row in text.split("\n")):
            return text
        line = data.count(b"\n", 0, error.start) + 1
        cause = f"{path}:{line}: byte {data[error.start]:#04x} is not UTF-8 text."
        if strict:
            raise ModelError(cause, remedy="Save the file as UTF-8, or open it with strict=False.") from error
        warnings.warn(f"{cause} Such bytes are replaced.", stacklevel=4)
        return text


def _replaced_outside_comment(row: str) -> bool:
    """Whether a line has a byte that is not UTF-8 elsewhere than in its comment."""
    before, _, _ = row.partition("\ufffd")
    quoted = before.count('"') % 2 == 1
    return "\ufffd" in row and (quoted or "#" not in before)


@dataclass(frozen=True)
class _Scan:
    """What one pass over the text finds.

    Attributes:
        lines: Lines of the network's `layer` and of its `layers` entries.
        unknown: Line, message descriptor and name of each field that the schema does not have.
    """

    lines: dict[str, list[int]]
    unknown: list[tuple[int, Any, str]]


@dataclass
class _Level:
    """A message that the scan is in: its descriptor, None where it is not known; the last field; whether in a list."""

    message: Any
    field: Any = None
    in_list: bool = False


def _scan(text: str, path: Path) -> _Scan:
    """Walk over the fields without reading values.

    A message's name is followed by `{` or `<`, any other field's by `:`, so a word is a field's name exactly where no
    value is awaited. What is not well formed is left for protobuf's parser to refuse.
    """
    found = _Scan({"layer": [], "layers": []}, [])
    stack = [_Level(message_class("caffe", "caffe.NetParameter").DESCRIPTOR)]
    awaiting_value = False
    for kind, token, line in _tokens(text):
        level = stack[-1]
        if kind == "word" and not awaiting_value and not level.in_list:
            _enter_field(level, token, line, found)
            if len(stack) == 1 and token in found.lines:
                found.lines[token].append(line)
            continue
        awaiting_value = kind == "mark" and token == ":"
        if kind != "mark":
            continue
        if token in "{<":
            stack.append(_Level(level.field.message_type if level.field is not None else None))
            if len(stack) > _MAX_DEPTH:
                raise ModelError(
                    f"{path}:{line}: messages are nested more than {_MAX_DEPTH} deep.", remedy="Pass a real network."
                )
        elif token in "}>" and len(stack) > 1:
            stack.pop()
        elif token in "[]":
            level.in_list = token == "["
    return found


def _enter_field(level: _Level, name: str, line: int, found: _Scan) -> None:
    """Note a field's name, and that it is unknown where the schema does not have it."""
    if level.message is None:
        return
    level.field = level.message.fields_by_name.get(name)
    if level.field is None:
        found.unknown.append((line, level.message, name))


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind == "line":
            line += 1
        elif kind != "skip":
            yield kind, match.group(), line


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
