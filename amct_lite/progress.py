"""Progress of long work: on a terminal a line that moves, elsewhere nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

__all__ = ["SearchProgress", "step_progress", "sweep_progress"]


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


class SearchProgress:
    """A line for each trial and a spinner with the best so far."""

    def __init__(self, total: int) -> None:
        """Show a search of at most `total` evaluations."""
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status("evaluating the float model") if self._console.is_terminal else None
        self._total, self._count = total, 0
        self._best: _Trial | None = None

    def __enter__(self) -> "SearchProgress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def trial(self, trial: _Trial) -> None:
        """Show one more trial."""
        self._count += 1
        if self._status is None:
            return
        if self._count > 1 and trial.satisfied and (self._best is None or trial.size_bytes < self._best.size_bytes):
            self._best = trial
        verdict = "float model" if self._count == 1 else ("satisfies" if trial.satisfied else "does not satisfy")
        self._console.print(
            f"[{self._count}/{self._total}] {trial.size_bytes:,} bytes, metric {trial.metric:.6g}: {verdict}"
        )
        best = "none satisfies yet" if self._best is None else f"best so far {self._best.size_bytes:,} bytes"
        self._status.update(f"searching, {best}")
