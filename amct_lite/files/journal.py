"""The journal of a search: an append-only JSON-lines file from which a killed search goes on.

The first line holds the search's keys (digests of model, data, config; version); each further line is one trial.
A line counts once its newline is on disk, so a line torn by a crash is dropped on opening.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amct_lite.errors import FileError, SearchError

__all__ = ["Journal"]

_WRITE_REMEDY = (
    "Check that the folder exists, that you may write to it, and that the disk has room; started again, the search"
    " goes on where it stopped."
)


class Journal:
    """Trials on disk, keyed by what they depend on.

    Attributes:
        path: The file.
        entries: The trials that it held when it was opened and those appended since, in order.
    """

    def __init__(self, path: Path, keys: Mapping[str, str]) -> None:
        """Open a journal, or start one.

        Args:
            path: The file; its folder must exist.
            keys: What the search depends on, name -> digest or value.

        Raises:
            SearchError: The file belongs to another search; the message names each key that differs.
            FileError: It cannot be read or written.
        """
        self.path = path
        self.entries: list[dict[str, Any]] = []
        lines, whole_size = self._whole_lines()
        if lines:
            self._refuse_other_search(lines[0], keys)
        self._drop_torn_line(whole_size)
        if lines:
            self.entries = lines[1:]
        else:
            self._append_line({"keys": dict(keys)})

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a trial; it is on disk when this returns."""
        self._append_line(dict(entry))
        self.entries.append(dict(entry))

    def _whole_lines(self) -> tuple[list[dict[str, Any]], int]:
        """The lines that are whole, and how many bytes they take."""
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise FileError(
                f"The journal {self.path} cannot be read: {error.strerror}.",
                remedy="Check the path and its permissions.",
            ) from error
        whole = data[: data.rfind(b"\n") + 1]
        lines = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._damaged(number) from error
            if not isinstance(entry, dict):
                raise self._damaged(number)
            lines.append(entry)
        return lines, len(whole)

    def _damaged(self, line_number: int) -> SearchError:
        return SearchError(
            f"The journal {self.path} is damaged at line {line_number}.",
            remedy="Delete it to start the search anew.",
        )

    def _drop_torn_line(self, whole_size: int) -> None:
        try:
            if self.path.exists() and self.path.stat().st_size > whole_size:
                os.truncate(self.path, whole_size)
        except OSError as error:
            raise FileError(
                f"The journal {self.path} cannot be written: {error.strerror}.", remedy=_WRITE_REMEDY
            ) from error

    def _refuse_other_search(self, head: dict[str, Any], keys: Mapping[str, str]) -> None:
        found = head.get("keys")
        if not isinstance(found, dict):
            raise self._damaged(1)
        different = [name for name in {**keys, **found} if found.get(name) != keys.get(name)]
        if different:
            raise SearchError(
                f"The journal {self.path} belongs to another search: {', '.join(different)} differ"
                f"{'s' if len(different) == 1 else ''}.",
                remedy="Use another save_dir, or delete the journal to start the search anew.",
            )

    def _append_line(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n"
        try:
            with self.path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(
                f"The journal {self.path} cannot be written: {error.strerror}.", remedy=_WRITE_REMEDY
            ) from error
