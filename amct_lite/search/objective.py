"""What a search is to find: the smallest model that satisfies, the best one within bytes, or the whole front."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from amct_lite.search.result import Trial

__all__ = ["Goal", "Objective"]


class Goal(StrEnum):
    """The kinds of objectives."""

    SMALLEST = "smallest"
    BEST = "best"
    FRONT = "front"


@dataclass(frozen=True)
class Objective:
    """An objective.

    Attributes:
        goal: SMALLEST: the smallest model that the user's test accepts. BEST: the best metric within `max_bytes`.
            FRONT: for every size the best metric, as far as the budget goes; the model saved is the smallest that
            satisfies.
        max_bytes: The most that BEST may take.
        greater_is_better: Whether a greater metric is a better one; SMALLEST does not need to know.
    """

    goal: Goal = Goal.SMALLEST
    max_bytes: int | None = None
    greater_is_better: bool = True

    def meets(self, trial: Trial) -> bool:
        """Whether a trial is within the objective's bound."""
        return trial.satisfied if self.max_bytes is None else trial.size_bytes <= self.max_bytes

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial that the objective is after; None where none is within its bound."""
        within = [trial for trial in trials if self.meets(trial)]
        if self.max_bytes is None:
            return min(within, key=lambda t: t.size_bytes, default=None)
        sign = -1.0 if self.greater_is_better else 1.0
        return min(within, key=lambda t: (sign * t.metric, t.size_bytes), default=None)
