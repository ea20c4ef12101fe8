"""Running the float model for its observed tensors, one batch ahead of the one that is counted."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.feeds import Feed
from amct_lite.calibration.statistics import Statistics

__all__ = ["ObservedSession", "observe_batch", "run_ahead"]

Values = dict[str, npt.NDArray[Any]]


class ObservedSession:
    """An onnxruntime session that returns the observed tensors of a batch.

    Attributes:
        session: The session; `produced` are among its outputs.
        produced: The observed tensors that are no inputs of the model.
    """

    def __init__(self, session: Any, produced: Sequence[str]) -> None:
        self.session = session
        self.produced = list(produced)

    def run(self, feed: Feed) -> Values:
        """The observed tensors of one batch, inputs left out."""
        values = self.session.run(self.produced, feed) if self.produced else []
        return dict(zip(self.produced, values, strict=True))


def run_ahead(run: Callable[[Feed], Values], feeds: Iterable[Feed]) -> Iterator[tuple[Feed, Values]]:
    """Run feeds in a thread, each while its forerunner is with the caller.

    At most two batches' tensors are in memory, provided that the caller drops those that it has used. Exceptions of
    `run` and of `feeds` reach the caller; leaving early waits for the batch that is running.

    Args:
        run: Computes one batch; it should release the interpreter's lock while it works, as onnxruntime does.
        feeds: Read in the caller's thread, one feed ahead: one that has been read must not change any more.

    Yields:
        Each feed with what it gave, in order.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="amct_lite_inference") as pool:
        last: tuple[Feed, Future[Values]] | None = None
        for feed in feeds:
            current = feed, pool.submit(run, feed)
            if last is not None:
                yield last[0], last[1].result()
            last = current
        if last is not None:
            yield last[0], last[1].result()


def observe_batch(
    statistics: Statistics, feed: Mapping[str, npt.NDArray[Any]], values: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Feed the observers with one batch.

    Args:
        statistics: The observers.
        feed: The batch's inputs.
        values: At least the observed tensors that are not inputs.
    """
    for tensor in statistics.tensors:
        statistics.observe(tensor, np.asarray(values[tensor] if tensor in values else feed[tensor]))
    statistics.batches += 1
    first = next(iter(feed.values()), None)
    statistics.samples += first.shape[0] if first is not None and first.ndim else 1
