"""Progress of long work: on a terminal a line that moves, elsewhere nothing."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

__all__ = ["SearchProgress", "TrainingProgress", "step_progress", "sweep_progress"]


class _Trial(Protocol):
    """What is shown of a trial."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def metric(self) -> float: ...
    @property
    def satisfied(self) -> bool: ...


@contextmanager
def sweep_progress(batch_num: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over calibration batches; the value is called with (batches done, batch_num)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("calibrating", total=batch_num)
        yield lambda done, _total: bar.update(task, completed=done)


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar over named steps; the value is called with (what is done, steps done, steps in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what, _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


class _Status:
    """On a terminal a line that changes, below lines that stay; elsewhere nothing."""

    def __init__(self, text: str) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status(text) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()


class SearchProgress(_Status):
    """On a terminal: a line for each trial, and below them what is tried, the best so far and the time left."""

    def __init__(self, total: int) -> None:
        """Show a search of at most `total` evaluations."""
        super().__init__("starting")
        self._total, self._count = total, 0
        self._original: _Trial | None = None
        self._best: _Trial | None = None
        self._start = time.monotonic()
        self._trying = ""

    def original(self, trial: _Trial) -> None:
        """Show the float model's trial."""
        self._count, self._original = 1, trial
        self._line(f"[1/{self._total}] float model: {trial.size_bytes:,} bytes, metric {trial.metric:.6g}")

    def trying(self, what: str) -> None:
        """Show what is evaluated now."""
        self._trying = what
        self._update()

    def trial(self, trial: _Trial) -> None:
        """Show one more trial."""
        self._count += 1
        if trial.satisfied and (self._best is None or trial.size_bytes < self._best.size_bytes):
            self._best = trial
        verdict = "satisfies" if trial.satisfied else "does not satisfy"
        self._line(f"[{self._count}/{self._total}] {self._described(trial)}: {verdict}")
        self._update()

    def _described(self, trial: _Trial) -> str:
        change = "" if self._original is None else f" ({trial.metric - self._original.metric:+.6g})"
        return f"{trial.size_bytes:,} bytes, metric {trial.metric:.6g}{change}"

    def _line(self, text: str) -> None:
        if self._status is not None:
            self._console.print(text, highlight=False)

    def _update(self) -> None:
        if self._status is None:
            return
        best = "none satisfies yet" if self._best is None else f"best {self._described(self._best)}"
        left = ""
        if 0 < self._count < self._total:
            seconds = (time.monotonic() - self._start) / self._count * (self._total - self._count)
            left = f"; at most {timedelta(seconds=round(seconds))} left"
        self._status.update(f"trying {self._trying}; {best}{left}. Ctrl-C stops and saves the best.")


class TrainingProgress(_Status):
    """On a terminal: a line for each epoch with its loss and metric, and below them the step and the loss so far."""

    def __init__(self, epochs: int) -> None:
        """Show a training of so many epochs."""
        super().__init__("training")
        self._epochs = epochs

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to show it on."""
        return self._status is not None

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Show one more step; `loss` is the mean of the epoch so far."""
        if self._status is not None:
            self._status.update(f"epoch {epoch}/{self._epochs}, step {step}: loss {loss:.4g}")

    def epoch(self, number: int, loss: float, metric: float | None) -> None:
        """Show an epoch that is done."""
        if self._status is not None:
            judged = "" if metric is None else f", metric {metric:.6g}"
            self._console.print(f"[{number}/{self._epochs}] loss {loss:.4g}{judged}", highlight=False, markup=False)
