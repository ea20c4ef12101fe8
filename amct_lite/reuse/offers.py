"""Files of candidates that this process has just written, for sessions that open them while the search runs.

Evaluators are the user's code: they get a path, and open a session of it. So the search leaves the segments here under
that path. Outside of a search there are none, and a file that was changed since is read like any other.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from amct_lite.graph.segments import Segment
from amct_lite.reuse.segment_runner import SegmentRunner
from amct_lite.reuse.segmented_session import SegmentedSession

__all__ = ["SegmentOffers", "open_offered"]


@dataclass(frozen=True)
class _Offer:
    segments: tuple[Segment, ...]
    runner: SegmentRunner
    state: tuple[int, ...]


_offers: dict[Path, _Offer] = {}
_lock = threading.Lock()


class SegmentOffers(AbstractContextManager["SegmentOffers"]):
    """The offers of one search; when it is left, all that they held is given up."""

    def __init__(self, runner: SegmentRunner) -> None:
        self.runner = runner
        self._own: set[Path] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._withdraw(self._own)
        self.runner.clear()

    def offer(self, path: Path, segments: Sequence[Segment]) -> None:
        """Say what a file consists of; forget those that are gone.

        Args:
            path: A file that was just written and is not to be changed.
            segments: All of it; nothing is offered where there are fewer than two.
        """
        self._withdraw({own for own in self._own if not own.exists()})
        if len(segments) < 2:
            return
        place = path.resolve()
        with _lock:
            _offers[place] = _Offer(tuple(segments), self.runner, _state(place))
        self._own.add(place)

    def _withdraw(self, paths: set[Path]) -> None:
        self._own = self._own - paths
        with _lock:
            for path in paths:
                _offers.pop(path, None)


def open_offered(path: Path, open_plain: Callable[[], Any]) -> SegmentedSession | None:
    """A session of a file that a search in this process has offered; None where none has, or it has changed.

    Args:
        path: The file, resolved.
        open_plain: Opens it as a plain session.
    """
    with _lock:
        offer = _offers.get(path)
    if offer is None or _state(path) != offer.state:
        return None
    return SegmentedSession(offer.segments, offer.runner, open_plain)


def _state(path: Path) -> tuple[int, ...]:
    """Differs once a file was written again."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
