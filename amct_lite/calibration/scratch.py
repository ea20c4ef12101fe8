"""Memory that observers work in: fresh arrays of this size cost more in page faults than all the arithmetic."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK_SIZE", "Scratch", "flat_pieces"]

# Values worked on at a time: they and what is computed from them (1 MiB in all) stay in a core's cache.
CHUNK_SIZE = 2**16


class Scratch:
    """Arrays of CHUNK_SIZE values, allocated when first asked for and used by one thread at a time.

    Example:
        >>> Scratch().floats.size
        65536
    """

    @cached_property
    def floats(self) -> npt.NDArray[np.float32]:
        """For scaled values."""
        return np.empty(CHUNK_SIZE, dtype=np.float32)

    @cached_property
    def indices(self) -> npt.NDArray[np.intp]:
        """For numbers of bins."""
        return np.empty(CHUNK_SIZE, dtype=np.intp)


def flat_pieces(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """The values in pieces of nearly the same size, at most CHUNK_SIZE, so that none is mostly overhead.

    Example:
        >>> [piece.size for piece in flat_pieces(np.zeros((2, 50_000)))]
        [50000, 50000]
    """
    flat = values.ravel(order="K")
    length = -(-flat.size // -(-flat.size // CHUNK_SIZE)) if flat.size else 1
    for start in range(0, flat.size, length):
        yield flat[start : start + length]
