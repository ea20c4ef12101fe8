"""Trials: what a strategy asks for is evaluated, each choice at most once, and the journal remembers it."""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from amct_lite.errors import EvaluatorError
from amct_lite.export.save import ModelFiles
from amct_lite.files.journal import Journal
from amct_lite.progress import SearchProgress
from amct_lite.search.accuracy_test import AccuracyTest
from amct_lite.search.choices import Choice
from amct_lite.search.evaluations import Evaluations, Measured, Write
from amct_lite.search.problem import Problem
from amct_lite.search.result import Stop, Trial
from amct_lite.search.strategies.protocol import Outcome, Strategy
from amct_lite.workers import Jobs

__all__ = ["TrialRunner"]

FLOAT_KEY = "float"

# How long to wait before looking again whether another process has finished a trial.
POLL_SECONDS = 0.2


class TrialRunner:
    """Evaluates what a strategy asks for.

    Attributes:
        original: The float model's trial; None before it was evaluated.
        trials: Every choice that was evaluated, or asked for and found in the journal, and its trial, in order.
    """

    def __init__(
        self,
        problem: Problem,
        test: AccuracyTest,
        journal: Journal,
        *,
        jobs: Jobs | None,
        deadline: float | None,
        progress: SearchProgress,
    ) -> None:
        self.original: Trial | None = None
        self.trials: dict[Choice, Trial] = {}
        self._problem, self._test, self._journal = problem, test, journal
        self._jobs, self._deadline, self._progress = jobs, deadline, progress

    def run(self, strategy: Strategy) -> Stop:
        """Ask, evaluate and tell until the strategy is done, time is up, or the user interrupts.

        Raises:
            EvaluatorError: The evaluator returns no number, or does not accept the float model itself.
        """
        try:
            with Evaluations(self._test, self._jobs) as evaluations:
                return self._run(strategy, evaluations)
        except KeyboardInterrupt:
            if self.original is None:
                raise
            return Stop.INTERRUPTED

    def _run(self, strategy: Strategy, evaluations: Evaluations) -> Stop:
        self._evaluate_float(evaluations, strategy)
        elsewhere = 0
        # What other processes are at is asked for too, and what is asked for beyond it keeps this one busy.
        while wanted := list(strategy.ask(evaluations.at_once + elsewhere)):
            if self._time_is_up() and any(self._remembered(self._problem.key(c)) is None for c in wanted):
                return Stop.TIME
            by_key = {self._problem.key(choice): choice for choice in wanted}
            writes = {key: partial(self._problem.write, choice) for key, choice in by_key.items()}
            self._measure(writes, by_key, evaluations, self._described(wanted))
            elsewhere = len(by_key) - self._tell(strategy, by_key)
        return Stop.DONE

    def _evaluate_float(self, evaluations: Evaluations, strategy: Strategy) -> None:
        """Evaluate the float model; with workers, what the strategy wants first goes along."""
        also = [] if evaluations.at_once == 1 or self._time_is_up() else strategy.ask(evaluations.at_once - 1)
        by_key = {self._problem.key(choice): choice for choice in also}
        writes: dict[str, Write] = {FLOAT_KEY: lambda _folder: self._float_files()}
        writes.update({key: partial(self._problem.write, choice) for key, choice in by_key.items()})
        while self._remembered(FLOAT_KEY) is None:
            self._measure(writes, by_key, evaluations, "the float model")
        metric = self._remembered(FLOAT_KEY)
        assert metric is not None
        accepted = self._test.accepts(metric, metric)
        self.original = Trial(FLOAT_KEY, (), self._problem.model.size_bytes, metric, accepted)
        self._progress.original(self.original)
        if not accepted:
            verdict = self._test.verdict_method
            raise EvaluatorError(
                f"{verdict}({metric!r}, {metric!r}) is False: the evaluator refuses the float model.",
                remedy=f"Correct {verdict}, so that a model as good as the float one passes.",
            )
        self._tell(strategy, by_key)

    def _tell(self, strategy: Strategy, by_key: Mapping[str, Choice]) -> int:
        """Tell what is known of some choices, and return of how many."""
        known = [(key, choice) for key, choice in by_key.items() if self._remembered(key) is not None]
        for key, choice in known:
            strategy.tell(choice, self._outcome(self._trial(key, choice)))
        return len(known)

    def _measure(
        self, writes: Mapping[str, Write], by_key: Mapping[str, Choice], evaluations: Evaluations, what: str
    ) -> None:
        """Evaluate what is neither in the journal nor another process's; wait a little where nothing is left."""
        with contextlib.ExitStack() as claims:
            own = {}
            for key, write in writes.items():
                if self._remembered(key) is None and self._journal.claim(key):
                    claims.callback(self._journal.release, key)
                    own[key] = write
            # Between the look into the journal and the claim another process may have finished.
            self._journal.refresh()
            own = {key: write for key, write in own.items() if self._remembered(key) is None}
            self._progress.trying(what if own else f"{what}, which another process is at")
            for measured in evaluations.measure(own):
                self._remember(measured, by_key.get(measured.key))
        if not own and any(self._remembered(key) is None for key in writes):
            time.sleep(POLL_SECONDS)
        self._journal.refresh()

    def _trial(self, key: str, choice: Choice) -> Trial:
        if choice not in self.trials:
            metric = self._remembered(key)
            assert metric is not None and self.original is not None
            # Asked again for a trial of the journal too: it costs nothing, and the user may have moved the limit.
            satisfied = self._test.accepts(self.original.metric, metric)
            self.trials[choice] = Trial(key, self._names(choice), self._problem.size_bytes(choice), metric, satisfied)
            self._progress.trial(self.trials[choice])
        return self.trials[choice]

    def _float_files(self) -> ModelFiles:
        model = self._problem.model
        others = tuple(file for file in model.files if file not in (model.path, model.weights_path))
        return ModelFiles(model.path, model.weights_path, others)

    def _remember(self, measured: Measured, choice: Choice | None) -> None:
        entry: dict[str, Any] = {"key": measured.key, "metric": measured.metric, "seconds": round(measured.seconds, 3)}
        entry["size_bytes"] = self._problem.model.size_bytes if choice is None else self._problem.size_bytes(choice)
        if choice is not None:
            entry["options"] = list(self._names(choice))
        try:
            original = measured.metric if choice is None else self._remembered(FLOAT_KEY)
            if original is not None:
                entry["satisfied"] = self._test.accepts(original, measured.metric)
        finally:  # a verdict that fails is no reason to lose the metric
            self._journal.append(entry)

    def _remembered(self, key: str) -> float | None:
        return next((entry["metric"] for entry in self._journal.entries if entry.get("key") == key), None)

    def _outcome(self, trial: Trial) -> Outcome:
        assert self.original is not None
        return Outcome(trial.metric, trial.satisfied, trial.metric - self.original.metric)

    def _names(self, choice: Choice) -> tuple[str, ...]:
        return tuple(unit.options[index].name for unit, index in zip(self._problem.units, choice, strict=True))

    def _described(self, choices: Sequence[Choice]) -> str:
        counts = Counter(self._names(choices[0])).most_common()
        first = f"{self._problem.size_bytes(choices[0]):,} bytes ({', '.join(f'{n} x {name}' for name, n in counts)})"
        return first if len(choices) == 1 else f"{first} and {len(choices) - 1} more"

    def _time_is_up(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline
