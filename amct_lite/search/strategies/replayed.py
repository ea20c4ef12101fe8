"""A strategy written as a plain program that looks at choices one after the other; workers look ahead.

The program is run from its start at every `ask`, on what is known by then; where it looks at something unknown it
is left. For more than one worker it is run on, with both verdicts that the unknown choice may get, the likelier
one first: so the number of workers changes how long a search takes, never what it finds. For a bisection with three
workers that is a search in four parts. Behind several choices at once, most of which fail, it is run on as if all did;
where it asks for metrics, those of such verdicts that are known stand in for them.
"""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence

from amct_lite.search.choices import Choice
from amct_lite.search.strategies.protocol import Outcome

__all__ = ["Look", "Program", "ReplayedStrategy"]

EVEN_CHANCE = 0.5


class Look:
    """The program's eyes: called with a choice, it gives its outcome.

    Attributes:
        seen: What the program looked at, in order.
    """

    def __init__(self, known: Mapping[Choice, Outcome], max_trials: int) -> None:
        self.seen: dict[Choice, Outcome] = {}
        self._known = known
        self._max_trials = max_trials

    def __call__(self, choice: Choice, chance: float = EVEN_CHANCE) -> Outcome:
        """The outcome of one choice.

        Args:
            choice: A choice.
            chance: How likely it is to satisfy, so that workers look ahead in the right direction.
        """
        if choice not in self.seen:
            self._require([choice], chance)
            self.seen[choice] = self._known[choice]
        return self.seen[choice]

    def at_all(self, choices: Sequence[Choice]) -> None:
        """Look at several choices, of which none depends on another's outcome."""
        left = self._max_trials - len(self.seen)
        new = [choice for choice in dict.fromkeys(choices) if choice not in self.seen]
        self._require(new[:left], EVEN_CHANCE)
        self.seen.update({choice: self._known[choice] for choice in new[:left]})
        if len(new) > left:
            raise _BudgetSpentError

    def outcomes(self) -> dict[Choice, Outcome]:
        """All outcomes seen, for decisions that depend on metrics."""
        if any(math.isnan(outcome.metric) for outcome in self.seen.values()):
            raise _UnforeseeableError
        return dict(self.seen)

    def _require(self, choices: Sequence[Choice], chance: float) -> None:
        if len(self.seen) + len(choices) > self._max_trials:
            raise _BudgetSpentError
        unknown = [choice for choice in choices if choice not in self._known]
        if unknown:
            raise _UnknownError(unknown, chance)


Program = Callable[[Look], str]
"""Looks at choices, and returns what a larger budget would be spent on; empty where nothing is left to gain."""


class ReplayedStrategy:
    """See the module; a `Strategy`."""

    def __init__(self, program: Program, max_trials: int, *, otherwise: str) -> None:
        """Make a strategy of a program.

        Args:
            program: A function of what it sees alone.
            max_trials: How many choices it may look at.
            otherwise: The outlook where the budget ends the program.
        """
        self._program, self._max_trials, self._otherwise = program, max_trials, otherwise
        self._known: dict[Choice, Outcome] = {}

    def ask(self, count: int) -> list[Choice]:
        """See `Strategy`."""
        wanted: list[Choice] = []
        number = 0
        futures: list[tuple[float, int, dict[Choice, Outcome]]] = [(-1.0, number, {})]
        while futures and len(wanted) < count:
            negative_chance, _, assumed = heapq.heappop(futures)
            missing = self._run({**self._known, **assumed})[1]
            if missing is None:
                continue
            wanted += [choice for choice in missing.choices if choice not in wanted]
            verdicts = [(False, EVEN_CHANCE)]
            if len(missing.choices) == 1:
                verdicts = [(True, missing.chance), (False, 1 - missing.chance)]
            for verdict, chance in verdicts:
                number += 1
                future = {**assumed, **dict.fromkeys(missing.choices, self._assumed(verdict))}
                heapq.heappush(futures, (negative_chance * chance, number, future))
        return wanted[:count]

    def tell(self, choice: Choice, outcome: Outcome) -> None:
        """See `Strategy`."""
        self._known[choice] = outcome

    def _assumed(self, verdict: bool) -> Outcome:
        """An outcome to look ahead with: the middle one of those with this verdict; without a metric where none is."""
        known = sorted((o for o in self._known.values() if o.satisfied == verdict), key=lambda outcome: outcome.change)
        return known[len(known) // 2] if known else Outcome(math.nan, verdict, math.nan)

    @property
    def trials(self) -> list[Choice]:
        """See `Strategy`."""
        return list(self._run(self._known)[0].seen)

    @property
    def outlook(self) -> str:
        """See `Strategy`."""
        return self._run(self._known)[2]

    def _run(self, known: Mapping[Choice, Outcome]) -> tuple[Look, "_UnknownError | None", str]:
        look = Look(known, self._max_trials)
        try:
            return look, None, self._program(look)
        except _UnknownError as missing:
            return look, missing, self._otherwise
        except (_BudgetSpentError, _UnforeseeableError):
            return look, None, self._otherwise


class _UnknownError(Exception):
    """Choices without which the program cannot go on."""

    def __init__(self, choices: Sequence[Choice], chance: float) -> None:
        super().__init__()
        self.choices, self.chance = list(choices), chance


class _BudgetSpentError(Exception):
    """The program may look at nothing more."""


class _UnforeseeableError(Exception):
    """What comes next depends on a metric that is not known yet."""
