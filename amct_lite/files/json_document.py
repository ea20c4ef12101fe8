"""JSON files that a person edits: read with every mistake located, written always in one form."""

import json
from pathlib import Path
from typing import Any

from amct_lite.errors import AmctError, ConfigError, FileError

__all__ = ["dump_json", "read_json_object", "read_text"]


class _ObjectWithDuplicates(dict[str, Any]):
    """A parsed JSON object that remembers which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.duplicates = sorted({key for key in keys if keys.count(key) > 1}) if len(self) < len(keys) else []


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 file.

    Args:
        path: The file.
        what: What it is, for the message: "config file".

    Raises:
        FileError: It cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
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
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"The {what} {path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}.",
            remedy="Correct it there, or create the file again.",
        ) from error
    except RecursionError as error:
        raise ConfigError(f"The {what} {path} is nested too deeply.", remedy="Create the file again.") from error
    except _NotANumberError as error:
        raise ConfigError(f"The {what} {path} holds {error}.", remedy="JSON has finite numbers only.") from error
    if not isinstance(document, dict):
        raise ConfigError(f"The {what} {path} must hold a JSON object.", remedy="Create the file again.")
    _refuse_duplicates(document, "$", path, what)
    return document


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


def _refuse_duplicates(node: Any, where: str, path: Path, what: str) -> None:
    if isinstance(node, _ObjectWithDuplicates):
        if node.duplicates:
            raise _duplicate_error(node.duplicates, where, path, what)
        for key, value in node.items():
            _refuse_duplicates(value, f"{where}.{key}", path, what)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _refuse_duplicates(value, f"{where}[{index}]", path, what)


def _duplicate_error(keys: list[str], where: str, path: Path, what: str) -> AmctError:
    names = ", ".join(repr(key) for key in keys)
    return ConfigError(
        f"The {what} {path} has the key {names} more than once at {where}.",
        remedy=f"Please delete repeated items in {path}.",
    )
