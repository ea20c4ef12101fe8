"""Evaluations: models are written and measured, here or by joblib's workers, on this machine or a cluster's."""

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.errors import SearchError
from amct_lite.export.save import ModelFiles
from amct_lite.search.accuracy_test import AccuracyTest
from amct_lite.search.sending import SentObject, send, sendable_error
from amct_lite.workers import Jobs, open_workers

__all__ = ["Evaluations", "Measured"]

# A worker that dies takes its evaluation with it, perhaps for want of memory: it gets another try, on a new worker.
MAX_ATTEMPTS = 3

Write = Callable[[Path], ModelFiles]
"""Writes a model into an empty folder; or says where it is already."""


@dataclass(frozen=True)
class Measured:
    """One evaluation.

    Attributes:
        key: Which one.
        metric: What the evaluator returned.
        seconds: How long it took, without writing the model.
    """

    key: str
    metric: float
    seconds: float


class Evaluations(AbstractContextManager["Evaluations"]):
    """Measures models with the user's test; a context, since workers are kept from one round to the next.

    Attributes:
        at_once: How many models are measured at a time.
    """

    def __init__(self, test: AccuracyTest, jobs: Jobs | None) -> None:
        """Start the workers.

        Args:
            test: The user's test.
            jobs: Where it runs; None for this thread.
        """
        self._test, self._jobs = test, jobs
        self._stack = ExitStack()
        self._parallel: Any = None
        self.at_once = 1
        if jobs is not None:
            self._sent = None if jobs.backend == "threading" else send(test)
            self._start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, models: Mapping[str, Write]) -> Iterator[Measured]:
        """Measure some models, each as soon as it is done.

        Args:
            models: Key -> what writes it.

        Yields:
            One evaluation for each.

        Raises:
            SearchError: Workers died again and again.
            EvaluatorError: The test did not return one number. Exceptions of the user's own code pass through.
        """
        if self._parallel is None:
            yield from self._measure_here(models)
            return
        with tempfile.TemporaryDirectory(prefix="amct_lite_trials_", ignore_cleanup_errors=True) as scratch:
            packed = {}
            for number, (key, write) in enumerate(models.items()):
                folder = Path(scratch) / str(number)
                folder.mkdir()
                packed[key] = _Packed(write(folder))
            yield from self._measure_by_workers(packed)

    def _measure_here(self, models: Mapping[str, Write]) -> Iterator[Measured]:
        for key, write in models.items():
            with tempfile.TemporaryDirectory(prefix="amct_lite_trial_", ignore_cleanup_errors=True) as folder:
                measured = _timed(self._test, key, write(Path(folder)))
            yield measured

    def _measure_by_workers(self, packed: dict[str, "_Packed"]) -> Iterator[Measured]:
        import joblib

        assert self._jobs is not None
        # Threads read the files that are there; other processes may be on other machines and get their content.
        here = self._jobs.backend == "threading"
        test = self._test if here else self._sent
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                tasks = [
                    joblib.delayed(_measure)(test, key, model if here else model.with_content())
                    for key, model in packed.items()
                ]
                raised = None
                for found in self._parallel(tasks):
                    if isinstance(found, _Raised):
                        raised = raised or found
                        continue
                    del packed[found.key]
                    yield found
                if raised is not None:
                    raised.raise_again()
                return
            except _worker_deaths(self._jobs.backend) as error:
                self._stack.close()
                if attempt == MAX_ATTEMPTS:
                    raise SearchError(
                        f"A worker of the backend {self._jobs.backend!r} died {MAX_ATTEMPTS} times in one round of"
                        f" evaluations: {type(error).__name__}: {error}",
                        remedy="Look at the workers' memory and logs. Started again, the search goes on where it"
                        " stopped; fewer n_jobs take less memory.",
                    ) from error
                self._start()

    def _start(self) -> None:
        import joblib

        assert self._jobs is not None
        results_as_they_come = "list" if self._jobs.backend == "ray" else "generator_unordered"
        self._stack = ExitStack()
        self._parallel = self._stack.enter_context(open_workers(self._jobs, return_as=results_as_they_come))
        self.at_once = joblib.effective_n_jobs(self._jobs.n_jobs) if self._jobs.n_jobs < 0 else self._jobs.n_jobs


@dataclass(frozen=True)
class _Packed:
    """A model's files, and their content where they are not on the worker's disk."""

    files: ModelFiles
    content: Mapping[str, npt.NDArray[np.uint8]] | None = None

    def with_content(self) -> "_Packed":
        folder = self.files.model.parent
        # As arrays, which joblib maps into the memory of workers on this machine.
        content = {str(path.relative_to(folder)): np.fromfile(path, np.uint8) for path in self.files.all_files}
        return _Packed(self.files, content)

    def unpack(self, folder: Path) -> ModelFiles:
        """The files in a folder of the worker's."""
        assert self.content is not None
        for name, content in self.content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            content.tofile(folder / name)
        weights = self.files.weights
        return ModelFiles(folder / self.files.model.name, None if weights is None else folder / weights.name)


@dataclass(frozen=True)
class _Raised:
    """An exception of the user's test on its way back from a worker."""

    error: BaseException
    trace: str

    def raise_again(self) -> None:
        raise self.error from _RemoteTracebackError(self.trace)


class _RemoteTracebackError(Exception):
    """Where an exception was raised in a worker."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _measure(sent: AccuracyTest | SentObject, key: str, packed: _Packed) -> Measured | _Raised:
    try:
        test: AccuracyTest = sent.received() if isinstance(sent, SentObject) else sent
        if packed.content is None:
            return _timed(test, key, packed.files)
        with tempfile.TemporaryDirectory(prefix="amct_lite_trial_", ignore_cleanup_errors=True) as folder:
            return _timed(test, key, packed.unpack(Path(folder)))
    except Exception as error:  # whatever the user's code raises
        return _Raised(sendable_error(error), traceback.format_exc())


def _timed(test: AccuracyTest, key: str, files: ModelFiles) -> Measured:
    start = time.monotonic()
    metric = test.measure(files)
    return Measured(key, metric, time.monotonic() - start)


def _worker_deaths(backend: str) -> tuple[type[BaseException], ...]:
    """What a backend raises when a worker dies; what the user's test raises comes back as a value."""
    if backend == "dask":
        from distributed.scheduler import KilledWorker

        return (KilledWorker,)
    if backend == "ray":
        from ray.exceptions import RayError

        return (RayError,)
    return (BrokenExecutor,)
