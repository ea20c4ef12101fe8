"""What a model's files are, told by a digest that is computed only where something asks for it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from amct_lite.errors import FileError

__all__ = ["FileDigest"]

_CHUNK_BYTES = 1 << 20


class FileDigest:
    """SHA-256 of files, one behind the other; reading and hashing them takes as long as parsing a model.

    Args:
        files: The files. Their sizes and times of change are noted at once, so that a digest is never that of files
            that were changed later.

    Raises:
        OSError: A file is missing.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._stamps = [(file, _stamp(file)) for file in files]
        self._hexdigest: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(file for file, _ in self._stamps)

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(size for _, (size, _) in self._stamps)

    def hexdigest(self) -> str:
        """The digest, in hex.

        Raises:
            FileError: A file has changed since, or can be read no more.
        """
        if self._hexdigest is None:
            hasher = hashlib.sha256()
            for file, stamp in self._stamps:
                try:
                    _update(hasher, file)
                    changed = _stamp(file) != stamp
                except OSError as error:
                    raise FileError(
                        f"The file '{file}' can be read no more, and its digest is needed: {error}.",
                        remedy="Keep the model's files until all is done.",
                    ) from error
                if changed:
                    raise FileError(
                        f"The file '{file}' has changed since the model was loaded.", remedy="Load the model again."
                    )
            self._hexdigest = hasher.hexdigest()
        return self._hexdigest


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _update(hasher: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
