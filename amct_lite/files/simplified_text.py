"""Protobuf text that a person wrote, parsed as AMCT parses it, with the line of every mistake."""

import difflib
import logging
import re
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from amct_lite.errors import ConfigError
from amct_lite.files.json_document import read_text

__all__ = ["parse_config_text"]

_logger = logging.getLogger(__name__)

_UNKNOWN_FIELD = re.compile(r'Message type "(?P<message>[\w.]+)" has no field named "(?P<field>[^"]+)"')
_POSITION = re.compile(r"^\d+:\d+ : ")


def parse_config_text(path: Path, message: Any) -> None:
    """Read a file into a message.

    AMCT reads with protobuf's Merge: of a field that comes twice, and of several members of a oneof, the last one
    counts. So do we, with a warning that says where the file contradicts itself.

    Args:
        path: The file.
        message: An empty message, which is filled.

    Raises:
        FileError: It cannot be read.
        ConfigError: It is not valid; the message has the line, and the nearest known name of an unknown field.
    """
    text = read_text(path, "simplified config")
    strict = type(message)()
    try:
        text_format.Parse(text, strict)
    except text_format.ParseError as contradiction:
        try:
            text_format.Merge(text, message)
        except text_format.ParseError as error:
            raise ConfigError(
                f"The simplified config {path} is not valid, {_describe(error, message)}",
                remedy="Correct it there; docs/simplified_config.md lists every field.",
            ) from error
        _logger.warning(
            "The simplified config %s, %s The last one in the file counts.", path, _describe(contradiction, message)
        )
    else:
        message.CopyFrom(strict)


def _describe(error: text_format.ParseError, root: Any) -> str:
    """The parser's sentence in our words: the line, what is wrong, the nearest name that is known."""
    place = "" if error.GetLine() is None else f"line {error.GetLine()}: "
    said = _POSITION.sub("", str(error)).rstrip(".").replace('"amct_lite.', '"')
    unknown = _UNKNOWN_FIELD.search(str(error))
    if unknown is None:
        return f"{place}{said}."
    descriptor = root.DESCRIPTOR.file.pool.FindMessageTypeByName(unknown["message"])
    known = [field.name for field in descriptor.fields]
    near = difflib.get_close_matches(unknown["field"], known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}."
    return f"{place}{descriptor.name} has no field {unknown['field']!r}. {hint}"
