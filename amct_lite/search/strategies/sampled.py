"""A strategy around a sampler that learns: it samples a round of choices, waits for all outcomes, and learns of them.

A round has the same number of choices whatever the number of workers, and its outcomes are learned in the order of the
samples, not in that of the workers: so all find the same.
"""

from collections.abc import Sequence
from typing import Protocol

from amct_lite.search.choices import Choice
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.task import StrategyTask

__all__ = ["SampledStrategy", "Sampler"]

# A sampler may repeat itself: so many samples are drawn in a round for each choice that is wanted,
SAMPLES_A_CHOICE = 5
# and after so many rounds in a row without a new choice it has converged.
FRUITLESS_ROUNDS = 10


class Sampler(Protocol):
    """Proposes choices and learns from outcomes."""

    def sample(self) -> Choice:
        """A choice, new or not."""
        ...

    def learn(self, outcomes: Sequence[tuple[Choice, Outcome | None]]) -> None:
        """Take in what came of all samples since the last call.

        Args:
            outcomes: Each sample in order, and its outcome; None for one that is not worth a trial.
        """
        ...


class SampledStrategy:
    """See the module; a `Strategy`."""

    def __init__(self, sampler: Sampler, task: StrategyTask, *, round_size: int, max_trials: int | None = None) -> None:
        """Make a strategy of a sampler.

        Args:
            sampler: The sampler.
            task: What is chosen, and what for.
            round_size: New choices in a round.
            max_trials: Choices asked for at most; None for the task's.
        """
        self._sampler, self._task, self._round_size = sampler, task, round_size
        self._max_trials = task.max_trials if max_trials is None else min(max_trials, task.max_trials)
        # Options are ordered by bytes, the smallest first.
        self._nothing_fits = task.excess_bytes((0,) * len(task.units)) > 0
        self._known: dict[Choice, Outcome] = {}
        self._asked: list[Choice] = []
        self._samples: list[Choice] = []
        self._fruitless_rounds = 0

    def ask(self, count: int) -> list[Choice]:
        """See `Strategy`."""
        missing = self._missing()
        while not missing and not self._is_done:
            self._next_round()
            missing = self._missing()
        return missing[:count]

    def tell(self, choice: Choice, outcome: Outcome) -> None:
        """See `Strategy`."""
        self._known[choice] = outcome

    @property
    def trials(self) -> list[Choice]:
        """See `Strategy`."""
        return [choice for choice in self._asked if choice in self._known]

    @property
    def outlook(self) -> str:
        """See `Strategy`."""
        if self._nothing_fits:
            return f"Not even the smallest choice fits into {self._task.objective.max_bytes:,} bytes: allow more."
        if len(self.trials) == self._task.num_choices:
            return ""
        if self._fruitless_rounds == FRUITLESS_ROUNDS:
            return "The strategy repeats itself; another one may find smaller or better choices."
        return "With more evaluations the strategy would go on learning which choices are good."

    @property
    def _is_done(self) -> bool:
        most = min(self._max_trials, self._task.num_choices)
        return self._nothing_fits or len(self._asked) >= most or self._fruitless_rounds == FRUITLESS_ROUNDS

    def _missing(self) -> list[Choice]:
        # Rounds are small and come one after the other, so only the last one can have gaps.
        return [choice for choice in self._asked[-self._round_size :] if choice not in self._known]

    def _next_round(self) -> None:
        if self._samples:
            self._sampler.learn([(choice, self._known.get(choice)) for choice in self._samples])
        wanted = min(self._round_size, self._max_trials - len(self._asked))
        self._samples, new = [], dict[Choice, None]()
        while len(new) < wanted and len(self._samples) < SAMPLES_A_CHOICE * self._round_size:
            choice = self._sampler.sample()
            self._samples.append(choice)
            if choice not in self._known and self._task.worth_a_trial(choice):
                new[choice] = None
        self._asked += new
        self._fruitless_rounds = 0 if new else self._fruitless_rounds + 1
