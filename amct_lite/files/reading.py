"""Read a whole file, or say what is wrong with its path."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amct_lite.errors import FileError

__all__ = ["is_file", "mapped_bytes", "read_bytes"]


def is_file(path: Path) -> bool:
    """Whether a path is that of a file; what cannot be a path, for its length say, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, what: str) -> bytes:
    """The contents of a file.

    Args:
        path: The file.
        what: What it shall be, with its article, for the message: "an .onnx file".

    Raises:
        FileError: It is missing, is a folder, or cannot be read.
    """
    with _failures_named(path, what):
        return path.read_bytes()


@contextmanager
def mapped_bytes(path: Path, what: str) -> Iterator[bytes | mmap.mmap]:
    """The contents of a file, mapped into memory for a short while.

    Args:
        path: The file.
        what: What it shall be, as for `read_bytes`.

    Raises:
        FileError: It is missing, is a folder, or cannot be read.
    """
    with _failures_named(path, what):
        file = path.open("rb")
    with file:
        try:
            content: bytes | mmap.mmap = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # an empty file, or a file system that maps none
            with _failures_named(path, what):
                content = file.read()
        # The mapping goes with the last view of it, even one that an exception's traceback holds.
        yield content


@contextmanager
def _failures_named(path: Path, what: str) -> Iterator[None]:
    try:
        if path.exists() and not path.is_file():
            raise FileError(f"'{path}' is a folder or a device, not a file.", remedy=f"Pass the path of {what}.")
        yield
    except FileNotFoundError as error:
        raise FileError(f"There is no file '{path}'.", remedy="Check the path.") from error
    except FileError:
        raise
    except (OSError, ValueError) as error:
        raise FileError(
            f"The file '{path}' cannot be read: {error}.", remedy="Check the path and your rights."
        ) from error
