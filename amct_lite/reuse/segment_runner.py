"""Runs models segment by segment, and remembers sessions of segments and what prefixes of models gave.

Candidates of a search differ in few layers: behind the first one that differs everything is computed again, before it
nothing. The sessions of segments that did not change are open already, on both sides of it.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.graph.segments import Segment
from amct_lite.reuse.bounded_cache import BoundedCache

__all__ = ["MAX_OUTPUT_BYTES", "MAX_SESSION_BYTES", "SegmentRunner"]

MAX_SESSION_BYTES = 512 * 2**20
MAX_OUTPUT_BYTES = 512 * 2**20

# ONNX Runtime keeps a weight as it came and as its kernels like it; a session without any takes about this.
_COPIES_OF_WEIGHTS = 2
_SESSION_BYTES = 256 * 1024
# Each session has threads of its own.
_MAX_THREADS = 512

# Inputs are hashed and outputs kept at least for so many candidates before that has to have paid.
_TRIED_ROUNDS = 4

Array = npt.NDArray[Any]


@dataclass
class _Spent:
    """Where the time went.

    Attributes:
        hashing_seconds: On telling inputs apart.
        saved_seconds: On segments that were not run, when they were run.
    """

    hashing_seconds: float = 0.0
    saved_seconds: float = 0.0


@dataclass(frozen=True)
class _Kept:
    """What a prefix of a model gave for some input, and the seconds that it took."""

    values: dict[str, Array]
    seconds: float


class SegmentRunner:
    """See the module. Several threads may run models at a time.

    Attributes:
        sessions_made: How many sessions were made.
        segments_run: How many runs of segments there were.
    """

    def __init__(self, *, max_session_bytes: int = MAX_SESSION_BYTES, max_output_bytes: int = MAX_OUTPUT_BYTES) -> None:
        """Start with nothing.

        Args:
            max_session_bytes: The most that sessions which no open model uses may take: their weights, twice.
            max_output_bytes: The most that outputs may take.
        """
        self.sessions_made = 0
        self.segments_run = 0
        self._sessions: BoundedCache[Any] = BoundedCache(max_session_bytes)
        self._outputs: BoundedCache[_Kept] = BoundedCache(max_output_bytes)
        self._spent = _Spent()
        self._rounds = 0
        self._lock = threading.Lock()
        cores = os.cpu_count() or 1
        self._least_bytes = max(_SESSION_BYTES, max_session_bytes * cores // _MAX_THREADS if cores > 1 else 0)

    @property
    def size_bytes(self) -> int:
        """What sessions and outputs take now."""
        return self._sessions.size_bytes + self._outputs.size_bytes

    @property
    def keeps_outputs(self) -> bool:
        """Whether outputs are kept: not where hashing inputs took longer than it saved."""
        return self._rounds <= _TRIED_ROUNDS or self._spent.saved_seconds > self._spent.hashing_seconds

    def new_round(self) -> int:
        """A number for another model that is run; see `BoundedCache`."""
        with self._lock:
            self._rounds += 1
            if not self.keeps_outputs:
                self._outputs.clear()
            return self._rounds

    def session(self, segment: Segment, round_number: int) -> Any:
        """The session of a segment; raises whatever ONNX Runtime does."""
        with self._lock:
            found = self._sessions.get(segment.digest, round_number)
        if found is None:
            found = _open(segment.to_bytes())
            size = max(self._least_bytes, _SESSION_BYTES + _COPIES_OF_WEIGHTS * segment.weight_bytes)
            with self._lock:
                self.sessions_made += 1
                self._sessions.put(segment.digest, found, size, round_number)
        return found

    def run(
        self,
        segments: Sequence[Segment],
        feed: Mapping[str, Array],
        round_number: int,
        session_of: Callable[[Segment], Any],
    ) -> dict[str, Array]:
        """All outputs of a model.

        Args:
            segments: Its segments.
            feed: Input name -> array.
            round_number: Of this model, from `new_round`.
            session_of: Gives the session of a segment.

        Returns:
            Output name -> array, the caller's own.
        """
        keeps = self.keeps_outputs
        keys = self._keys(segments, feed) if keeps else []
        done, kept = self._longest_prefix(keys, round_number)
        values, seconds = (dict(feed), 0.0) if kept is None else (kept.values, kept.seconds)
        for number in range(done, len(segments)):
            session, names = session_of(segments[number]), list(segments[number].outputs)
            start = time.perf_counter()
            values = dict(zip(names, session.run(names, values), strict=True))
            seconds += time.perf_counter() - start
            with self._lock:
                self.segments_run += 1
                if keeps:
                    size = sum(value.nbytes for value in values.values())
                    self._outputs.put(keys[number], _Kept(values, seconds), size, round_number)
        return {name: value.copy() for name, value in values.items()} if keeps else values

    def clear(self) -> None:
        """Give up all sessions and outputs."""
        with self._lock:
            self._sessions.clear()
            self._outputs.clear()

    def _keys(self, segments: Sequence[Segment], feed: Mapping[str, Array]) -> list[str]:
        """A key for each prefix on this input."""
        start = time.perf_counter()
        digest = hashlib.sha256()
        for name in sorted(feed):
            array = np.ascontiguousarray(feed[name])
            digest.update(f"{name} {array.dtype.str} {feed[name].shape} ".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        keys = []
        for segment in segments:
            digest.update(segment.digest.encode())
            keys.append(digest.hexdigest())
        with self._lock:
            self._spent.hashing_seconds += time.perf_counter() - start
        return keys

    def _longest_prefix(self, keys: Sequence[str], round_number: int) -> tuple[int, _Kept | None]:
        """How many segments need not be run, and what the last of them gave."""
        with self._lock:
            for number in reversed(range(len(keys))):
                kept = self._outputs.get(keys[number], round_number)
                if kept is not None:
                    self._spent.saved_seconds += kept.seconds
                    # What is before it will be needed by the next candidate, which may change an earlier layer.
                    for earlier in keys[:number]:
                        self._outputs.get(earlier, round_number)
                    return number + 1, kept
        return 0, None


def _open(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # An arena would keep what the largest run took, in every session; a run without one takes as long.
    options.enable_cpu_mem_arena = False
    # The threads of all other sessions would be spinning while one runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
