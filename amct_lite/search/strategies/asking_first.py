"""A strategy with one choice in front: where that satisfies nothing else is asked for."""

from collections.abc import Sequence

from amct_lite.search.choices import Choice
from amct_lite.search.strategies.protocol import Outcome, Strategy

__all__ = ["AskingFirst"]


class AskingFirst:
    """For searches whose smallest choice mostly satisfies; a `Strategy`. See the module."""

    def __init__(self, first: Choice, then: Strategy) -> None:
        """Put a choice in front of a strategy.

        Args:
            first: Evaluated first; no other choice is smaller.
            then: Searches where it does not satisfy.
        """
        self._first, self._then = first, then
        self._outcome: Outcome | None = None

    def ask(self, count: int) -> list[Choice]:
        """See `Strategy`; workers that the first choice leaves idle look ahead."""
        if self._outcome is None:
            ahead = self._then.ask(count) if count > 1 else ()
            return [self._first, *(choice for choice in ahead if choice != self._first)][:count]
        if self._outcome.satisfied:
            return []
        wanted = list(self._then.ask(count))
        if self._first not in wanted:
            return wanted
        self._then.tell(self._first, self._outcome)
        return self.ask(count)

    def tell(self, choice: Choice, outcome: Outcome) -> None:
        """See `Strategy`."""
        if choice == self._first:
            self._outcome = outcome  # the other strategy hears of it when it asks
        else:
            self._then.tell(choice, outcome)

    @property
    def trials(self) -> Sequence[Choice]:
        """See `Strategy`."""
        if self._outcome is None:
            return []
        if self._outcome.satisfied:
            return [self._first]
        return [self._first, *(choice for choice in self._then.trials if choice != self._first)]

    @property
    def num_spent(self) -> int:
        """Evaluations taken from both budgets; the first choice twice where the other strategy asks for it, too."""
        return 0 if self._outcome is None else 1 + len(self._then.trials)

    @property
    def outlook(self) -> str:
        """See `Strategy`."""
        return "" if self._outcome is not None and self._outcome.satisfied else self._then.outlook
