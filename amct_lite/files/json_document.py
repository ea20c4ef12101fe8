"""JSON files that a person edits: read with every mistake located, written always in one form."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from amct_lite.errors import ConfigError, FileError

__all__ = ["dump_json", "json_path", "read_json_object", "read_text"]


class _ObjectWithDuplicates(dict[str, Any]):
    """A parsed JSON object that remembers which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.duplicates = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Args:
        path: The file.
        what: What it is, for the message: "config file".

    Raises:
        FileError: It cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"The {what} {path} is not UTF-8 text.", remedy="Save it as UTF-8.") from error
    except OSError as error:
        raise FileError(
            f"The {what} {path} cannot be read: {error.strerror}.",
            remedy="Check the path and its permissions.",
        ) from error


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file whose root is an object.

    Args:
        path: The file.
        what: What it is, for the messages.

    Raises:
        FileError: It cannot be read.
        ConfigError: It is not JSON, its root is no object, or a key comes twice.
    """
    try:
        document = json.loads(
            read_text(path, what), object_pairs_hook=_ObjectWithDuplicates, parse_constant=_refuse_constant
        )
        duplicates = list(_duplicates(document, []))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"The {what} {path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}.",
            remedy="Correct it there, or create the file again.",
        ) from error
    except RecursionError as error:
        raise ConfigError(f"The {what} {path} is nested too deeply.", remedy="Create the file again.") from error
    except _NotANumberError as error:
        raise ConfigError(f"The {what} {path} holds {error}.", remedy="JSON has finite numbers only.") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise ConfigError(f"The {what} {path} is not valid JSON: {error}.", remedy="Correct the number.") from error
    if not isinstance(document, dict):
        raise ConfigError(f"The {what} {path} must hold a JSON object.", remedy="Create the file again.")
    if duplicates:
        raise ConfigError(
            f"The {what} {path} has keys more than once: {', '.join(duplicates)}.",
            remedy=f"Please delete repeated items in {path}.",
        )
    return document


def json_path(location: Iterable[str | int]) -> str:
    """A location as a JSON path; names that are no identifiers stand in brackets.

    Example:
        >>> json_path(["conv1", "activation_quant_params", "search_range", 0])
        '$.conv1.activation_quant_params.search_range[0]'
        >>> json_path(["/features.0/Conv", "quant_enable"])
        "$['/features.0/Conv'].quant_enable"
    """
    return "$" + "".join(
        f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part!r}]" for part in location
    )


def dump_json(document: Any) -> str:
    r"""Write a document as AMCT does: four spaces, no blank before or after separators' signs.

    Example:
        >>> dump_json({"version": 1})
        '{\n    "version":1\n}\n'
    """
    return json.dumps(document, indent=4, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


class _NotANumberError(ValueError):
    """The text holds NaN or Infinity, which Python's parser would accept."""


def _refuse_constant(text: str) -> float:
    raise _NotANumberError(text)


def _duplicates(node: Any, location: list[str | int]) -> Iterator[str]:
    """The JSON path of every key that comes more than once in its object."""
    if isinstance(node, _ObjectWithDuplicates):
        yield from (json_path([*location, key]) for key in node.duplicates)
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield from _duplicates(value, [*location, key])
