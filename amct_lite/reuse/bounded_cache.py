"""A cache that holds a number of bytes at most and is not washed away by a scan that is larger than it."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Values by key; the least recently used one goes first.

    Uses come in rounds. Nothing that was used in a round is given up for what comes later in it: evaluations go over
    the same batches again and again, and a plain cache that is smaller than these would give up each entry just before
    it is needed.

    Attributes:
        max_bytes: The bound.
        size_bytes: What it holds now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Value, int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, round_number: int) -> Value | None:
        """The value of a key, which counts as used now; None where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, size_bytes, last_round = entry
        self._entries[key] = (value, size_bytes, max(last_round, round_number))
        self._entries.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Value, size_bytes: int, round_number: int) -> bool:
        """Keep a value, if there is room or room can be made.

        Returns:
            Whether it is kept.
        """
        if key in self._entries:
            return True
        freed, given_up = 0, []
        for other, (_, other_bytes, last_round) in self._entries.items():
            if self.size_bytes - freed + size_bytes <= self.max_bytes:
                break
            if last_round < round_number:
                given_up.append(other)
                freed += other_bytes
        if self.size_bytes - freed + size_bytes > self.max_bytes:
            return False
        for other in given_up:
            del self._entries[other]
        self.size_bytes += size_bytes - freed
        self._entries[key] = (value, size_bytes, round_number)
        return True

    def clear(self) -> None:
        """Give up everything."""
        self._entries.clear()
        self.size_bytes = 0
