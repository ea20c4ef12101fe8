"""Locks on single bytes of an open file, which the system gives back when the process ends, however it ends.

Where the system has no such locks (POSIX `fcntl`), each process believes that it is alone.
"""

import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock_bytes", "unlock_bytes"]


def lock_bytes(file: int, place: int, *, wait: bool) -> bool:
    """Lock one byte, which need not exist, for this process.

    Args:
        file: Descriptor of a file open for writing; closing any descriptor of that file gives up its locks.
        place: Which byte.
        wait: Whether to wait until no other process has it.

    Returns:
        Whether this process has it now.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place, os.SEEK_SET)
    except BlockingIOError:
        return False
    return True


def unlock_bytes(file: int, place: int) -> None:
    """Give a byte back."""
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, place, os.SEEK_SET)
