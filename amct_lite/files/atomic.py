"""Files that appear whole or not at all: written under a temporary name, then moved into place."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from amct_lite.errors import FileError

__all__ = ["replacing", "write_bytes_atomically", "write_text_atomically"]

_REMEDY = "Check that the folder exists or can be made, that you may write to it, and that the disk has room."


def write_bytes_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, so that a reader sees the old file or the whole new one.

    Args:
        path: Where the file shall be; missing parent folders are created.
        data: The contents.

    Raises:
        FileError: The file cannot be written; nothing is left behind.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "new" / "a.bin"
        >>> write_bytes_atomically(path, b"abc")
        >>> path.read_bytes()
        b'abc'
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    r"""Write `text` to `path` as UTF-8 with line ends as given, whole or not at all.

    Args:
        path: Where the file shall be; missing parent folders are created.
        text: The contents.

    Raises:
        FileError: The file cannot be written; nothing is left behind.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
        >>> write_text_atomically(path, "one\n")
        >>> path.read_text()
        'one\n'
    """
    write_bytes_atomically(path, text.encode("utf-8"))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it to `path` on success, remove it on failure.

    An OSError inside the block (a full disk, say) becomes a FileError; any other exception passes through
    unchanged. A symbolic link at `path` stays a link: the file it points to is replaced.

    Args:
        path: Where the file shall be; missing parent folders are created.

    Yields:
        The path to write to. It exists already, empty, in the folder of `path`.

    Raises:
        FileError: The file cannot be written; nothing is left behind.
    """
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _create_beside(target)
        yield temporary
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        _flush_to_disk(temporary)
        temporary.replace(target)
        temporary = None
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"The file '{path}' cannot be written: {error}.", remedy=_REMEDY) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _create_beside(target: Path) -> Path:
    """Create an empty file with a free name, and with the permissions that the final file shall have."""
    temporary = target.with_name(f".amct_{secrets.token_hex(8)}.tmp")
    # Not tempfile.mkstemp: it hides its files from the group, and the umask cannot be asked for safely.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _flush_to_disk(path: Path) -> None:
    """Force the contents to disk before the name changes, or a crash could leave an empty file in place."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
