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
        lines = self._whole_lines()
        if lines:
            self._refuse_other_search(lines[0], keys)
            self.entries = lines[1:]
        else:
            self._append_line({"keys": dict(keys)})

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a trial; it is on disk when this returns."""
        self._append_line(dict(entry))
        self.entries.append(dict(entry))

    def _whole_lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            data = self.path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.truncate(self.path, len(whole))
            return [json.loads(line) for line in whole.splitlines()]
        except OSError as error:
            raise FileError(f"The journal {self.path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise SearchError(
                f"The journal {self.path} is damaged.", remedy="Delete it to start the search anew."
            ) from error

    def _refuse_other_search(self, head: dict[str, Any], keys: Mapping[str, str]) -> None:
        stored = head.get("keys", {})
        different = [name for name in keys if stored.get(name) != keys[name]]
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
                f"The journal {self.path} cannot be written: {error.strerror}.",
                remedy="Free space on the disk and start again; the search goes on where it stopped.",
            ) from error
