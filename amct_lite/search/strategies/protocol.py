"""What every strategy is to the search: something to ask for choices and to tell what came of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from amct_lite.search.choices import Choice

__all__ = ["Outcome", "Strategy"]


@dataclass(frozen=True)
class Outcome:
    """What the evaluator made of one choice.

    Attributes:
        metric: Its metric.
        satisfied: Whether the user's test accepts it.
        change: The metric minus the float model's.
    """

    metric: float
    satisfied: bool
    change: float


class Strategy(Protocol):
    """A way to search. It holds no model and no file: choices go out, outcomes come in.

    The search asks, evaluates what it got (at once where there are workers), tells the outcomes, and asks again. An
    outcome may be missing for some rounds where another process works on it.
    """

    def ask(self, count: int) -> Sequence[Choice]:
        """Choices to evaluate next.

        Args:
            count: How many can be evaluated at once.

        Returns:
            At least one and at most `count` choices that were not told yet, those that were asked for before and
            are still missing first; none where the strategy is done.
        """
        ...

    def tell(self, choice: Choice, outcome: Outcome) -> None:
        """Take in what came of a choice that was asked for."""
        ...

    @property
    def trials(self) -> Sequence[Choice]:
        """The choices told so far that count, in order: what was evaluated ahead and not needed does not."""
        ...

    @property
    def outlook(self) -> str:
        """What a larger budget would be spent on, in a sentence; empty where nothing is left to gain."""
        ...
