"""The journal of a search: an append-only JSON-lines file from which a killed search goes on.

The first line holds the search's keys (digests of model, data, config; version); each further line is one trial.
A line counts once its newline is on disk, so a line torn by a crash is dropped. Several processes may share one
journal: each sees what the others appended, and says which trial it is at by a lock that ends with the process.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amct_lite.errors import FileError, SearchError
from amct_lite.files.locking import lock_bytes, unlock_bytes

__all__ = ["Journal", "read_journal"]

_WRITE_REMEDY = (
    "Check that the folder exists, that you may write to it, and that the disk has room; started again, the search"
    " goes on where it stopped."
)

# Locks lie far behind any line, so that they are in nobody's way: one byte for writing, one for each trial.
_WRITING = 1 << 60
_TRIALS = 1 << 61


class Journal:
    """Trials on disk, keyed by what they depend on.

    Attributes:
        path: The file.
        entries: The trials that it held when it was last read, and those appended since, in order.
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
        with _failures_named(path, "read" if path.exists() else "written"):
            # One handle for all: on POSIX, closing any other one of the same file would give up the locks.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._position = 0
        with self._alone():
            lines = self._new_lines()
            if lines:
                _refuse_other_search(path, lines[0], keys)
            self._drop_torn_line()
            if lines:
                self.entries = lines[1:]
            else:
                self._write({"keys": dict(keys)})

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a trial; it is on disk when this returns."""
        with self._alone():
            self.entries += self._new_lines()
            self._drop_torn_line()
            self._write(dict(entry))
        self.entries.append(dict(entry))

    def refresh(self) -> None:
        """Read what other processes have appended."""
        self.entries += self._new_lines()

    def claim(self, key: str) -> bool:
        """Whether no other process is at the trial with this key; then this one is, until `release` or its end."""
        return lock_bytes(self._file, _place_of(key), wait=False)

    def release(self, key: str) -> None:
        """Give a trial back that was claimed."""
        unlock_bytes(self._file, _place_of(key))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock_bytes(self._file, _WRITING, wait=True)
        try:
            with _failures_named(self.path, "written"):
                yield
        finally:
            unlock_bytes(self._file, _WRITING)

    def _new_lines(self) -> list[dict[str, Any]]:
        """The whole lines behind those that were read before."""
        with _failures_named(self.path, "read"):
            os.lseek(self._file, self._position, os.SEEK_SET)
            data = b""
            while piece := os.read(self._file, 1 << 20):
                data += piece
        whole = data[: data.rfind(b"\n") + 1]
        first = 1 if self._position == 0 else len(self.entries) + 2
        lines = [_parsed(line, self.path, number) for number, line in enumerate(whole.splitlines(), start=first)]
        self._position += len(whole)
        return lines

    def _drop_torn_line(self) -> None:
        if os.fstat(self._file).st_size > self._position:
            os.ftruncate(self._file, self._position)

    def _write(self, entry: dict[str, Any]) -> None:
        line = (json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n").encode()
        written = 0
        while written < len(line):
            written += os.write(self._file, line[written:])
        os.fsync(self._file)
        self._position += len(line)


def read_journal(path: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The keys and the trials of a journal, as they stand; a torn last line is left out.

    Raises:
        SearchError: It is damaged.
        FileError: It cannot be read.
    """
    with _failures_named(path, "read"):
        data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    lines = [_parsed(line, path, number) for number, line in enumerate(whole.splitlines(), start=1)]
    if not lines or not isinstance(lines[0].get("keys"), dict):
        raise _damaged(path, 1)
    return lines[0]["keys"], lines[1:]


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number) from error
    if not isinstance(entry, dict):
        raise _damaged(path, number)
    return entry


def _damaged(path: Path, line_number: int) -> SearchError:
    return SearchError(
        f"The journal {path} is damaged at line {line_number}.",
        remedy="Delete it to start the search anew.",
    )


def _refuse_other_search(path: Path, head: dict[str, Any], keys: Mapping[str, str]) -> None:
    found = head.get("keys")
    if not isinstance(found, dict):
        raise _damaged(path, 1)
    different = [name for name in {**keys, **found} if found.get(name) != keys.get(name)]
    if different:
        raise SearchError(
            f"The journal {path} belongs to another search: {', '.join(different)} differ"
            f"{'s' if len(different) == 1 else ''}.",
            remedy="Use another save_dir, or delete the journal to start the search anew.",
        )


def _place_of(key: str) -> int:
    return _TRIALS + int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])


@contextmanager
def _failures_named(path: Path, done: str) -> Iterator[None]:
    remedy = "Check the path and its permissions." if done == "read" else _WRITE_REMEDY
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"The journal {path} cannot be {done}: {error.strerror}.", remedy=remedy) from error
