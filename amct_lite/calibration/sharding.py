"""A sweep in shards: runs of batches observed by joblib's workers, and merged in their order.

Shards have a fixed number of batches, whatever the number of workers, and a sweep without workers sums up in the same
portions; so all of them give the same bytes.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.feeds import Feed
from amct_lite.calibration.observed_session import ObservedSession, observe_batch
from amct_lite.calibration.statistics import Statistics
from amct_lite.errors import AmctError, CalibrationError
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import session_bytes, session_from_bytes
from amct_lite.workers import Jobs, open_workers

__all__ = ["SHARD_BATCHES", "observe_shards"]

# Few enough that 32 batches give 8 workers something to do, and that a shard is sent in one piece.
SHARD_BATCHES = 4

# Shards that the caller's process holds at once, for each worker: the next one has to be there when one is done.
SHARDS_PER_WORKER = 2


def observe_shards(
    model: Model, observed: ObservedSession, wanted: Statistics, feeds: Iterator[Feed], jobs: Jobs
) -> Iterator[Statistics]:
    """Statistics of each shard, in order.

    Args:
        model: The float model; workers in other processes get it as bytes, once each where the backend can.
        observed: Its session in this process, for threads.
        wanted: What to observe; nothing is added to them here.
        feeds: Read in this thread, some shards ahead.
        jobs: How shards are run.

    Raises:
        CalibrationError: A shard failed or its worker died; the message names the shard and its batches.
        OptionalDependencyError: The backend's package is not installed.
    """
    import joblib

    if jobs.backend == "threading":
        task = joblib.delayed(functools.partial(_observe, observed))
    else:
        content = session_bytes(model.ir, observed.produced)
        data, key = np.frombuffer(content, np.uint8), hashlib.sha256(content).hexdigest()
        # The bytes are an argument of their own: loky maps a large array, and Dask sends it once.
        task = joblib.delayed(functools.partial(_observe_remotely, key, tuple(observed.produced)))
        task = functools.partial(task, data)
    with open_workers(jobs) as parallel:
        round_size = SHARDS_PER_WORKER * SHARD_BATCHES * joblib.effective_n_jobs(jobs.n_jobs)
        done = 0
        while batches := list(islice(feeds, round_size)):
            shards = [batches[start : start + SHARD_BATCHES] for start in range(0, len(batches), SHARD_BATCHES)]
            parts = [wanted.successor(done + SHARD_BATCHES * i) for i in range(len(shards))]
            with _failures_named(jobs.backend, done + 1, done + len(batches)):
                parts = parallel(task(part, shard) for part, shard in zip(parts, shards, strict=True))
            done += len(batches)
            yield from parts


@contextmanager
def _failures_named(backend: str, first: int, last: int) -> Iterator[None]:
    """Turns what a backend raises when a worker dies into our error; those of a shard name it already."""
    try:
        yield
    except AmctError:
        raise
    except Exception as error:  # each backend has exceptions of its own
        raise CalibrationError(
            f"A worker of the backend {backend!r} died on the shards of batches {first} to {last}:"
            f" {type(error).__name__}: {error}",
            remedy="Look at the workers' memory and logs; fewer n_jobs or smaller batches take less.",
        ) from error


@dataclass(frozen=True)
class _Source:
    """A model's bytes, equal to others by their digest."""

    key: str
    data: npt.NDArray[np.uint8] = field(compare=False, repr=False)


# A worker gets one shard after the other of the same model.
@functools.lru_cache(maxsize=1)
def _open(source: _Source) -> Any:
    # The workers share out the processors among themselves.
    return session_from_bytes(source.data.tobytes(), num_threads=1)


def _observe_remotely(
    key: str, produced: tuple[str, ...], data: npt.NDArray[np.uint8], part: Statistics, feeds: list[Feed]
) -> Statistics:
    return _observe(ObservedSession(_open(_Source(key, data)), produced), part, feeds)


def _observe(observed: ObservedSession, part: Statistics, feeds: Iterable[Feed]) -> Statistics:
    """Observe one shard."""
    batches_before = part.batches_before
    # Afresh, since what comes out of a pickle shares no memory to work in.
    statistics = part.successor(batches_before)
    try:
        for feed in feeds:
            observe_batch(statistics, feed, observed.run(feed))
    except Exception as error:  # onnxruntime has an exception class for each of its status codes
        number = batches_before + statistics.batches + 1
        cause = error.cause if isinstance(error, AmctError) else f"{type(error).__name__}: {error}"
        raise CalibrationError(
            f"Shard {batches_before // SHARD_BATCHES + 1} failed in batch {number}: {cause}",
            remedy=error.remedy if isinstance(error, AmctError) else None,
        ) from error
    return statistics
