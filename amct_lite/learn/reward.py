"""What a roll-out of the agent is worth."""

import math
from collections.abc import Sequence

import numpy as np

from amct_lite.search.choices import Choice, choice_bytes
from amct_lite.search.objective import Goal
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.task import StrategyTask

__all__ = ["Reward"]

# Falls of the metric are told apart by their logarithm, down to this share of it.
LEAST_FALL = 1e-5

# What a fall that is too large by a factor costs, against bytes that are too many by the same factor; the better of two
# that were tried on a dozen synthetic networks.
PENALTY = 0.4


class Reward:
    """What a roll-out is worth, in standard deviations over the warm-up."""

    def __init__(self, task: StrategyTask, seen: Sequence[tuple[Choice, Outcome]]) -> None:
        """Fix the scale.

        Args:
            task: What it is for.
            seen: What came of the warm-up.
        """
        self._task, self._limit, self._mean, self._deviation = task, 1.0, 0.0, 1.0
        passed = [self._fall(outcome) for _, outcome in seen if outcome.satisfied]
        failed = [self._fall(outcome) for _, outcome in seen if not outcome.satisfied]
        self._limit = math.sqrt(
            max(passed, default=min(failed, default=1)) * min(failed, default=max(passed, default=1))
        )
        rewards = [self(choice, outcome) for choice, outcome in seen]
        self._mean, self._deviation = float(np.mean(rewards)), float(np.std(rewards)) or 1.0

    def __call__(self, choice: Choice, outcome: Outcome) -> float:
        """The reward of one roll-out."""
        fall = math.log(self._fall(outcome))
        if self._task.objective.goal is Goal.SMALLEST:
            # Continuous where the test stops being satisfied: the agent learns from both sides.
            excess = 0.0 if outcome.satisfied else max(fall - math.log(self._limit), 0.0)
            reward = -math.log(max(choice_bytes(self._task.units, choice), 1)) - PENALTY * excess
        else:
            reward = -fall
        return (reward - self._mean) / self._deviation

    def _fall(self, outcome: Outcome) -> float:
        """The share of the float model's metric that is lost, > 0."""
        change = outcome.change
        if self._task.objective.goal is not Goal.SMALLEST:  # which does not know which way is better
            change = max(-change if self._task.objective.greater_is_better else change, 0.0)
        fall = abs(change) / (abs(outcome.metric - outcome.change) or 1.0)
        return min(max(fall, LEAST_FALL), 1 / LEAST_FALL) if math.isfinite(fall) else 1 / LEAST_FALL
