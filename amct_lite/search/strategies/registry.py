"""Strategies by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amct_lite.search.choices import Unit
from amct_lite.search.frontier import Frontier
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.strategies.best_within_bytes import best_within_bytes
from amct_lite.search.strategies.front import whole_front
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.strategies.smallest import smallest_that_satisfies

__all__ = ["DEFAULT_STRATEGY", "STRATEGIES", "StrategyTask"]

DEFAULT_STRATEGY = "frontier"


@dataclass(frozen=True)
class StrategyTask:
    """What a strategy is made for.

    Attributes:
        units: What is chosen.
        frontier: The choices with the least predicted error for their bytes; at least one layer is quantized in each.
        objective: What is to be found.
        max_trials: Choices that may be told, the float model not among them.
    """

    units: Sequence[Unit]
    frontier: Frontier
    objective: Objective
    max_trials: int


def _frontier_strategy(task: StrategyTask) -> Strategy:
    return _BY_GOAL[task.objective.goal](task)


_BY_GOAL: dict[Goal, Callable[[StrategyTask], Strategy]] = {
    Goal.SMALLEST: lambda task: smallest_that_satisfies(task.units, task.frontier, task.max_trials),
    Goal.BEST: lambda task: best_within_bytes(
        task.units,
        task.frontier,
        task.objective.max_bytes or 0,
        task.max_trials,
        greater_is_better=task.objective.greater_is_better,
    ),
    Goal.FRONT: lambda task: whole_front(
        task.units, task.frontier, task.max_trials, greater_is_better=task.objective.greater_is_better
    ),
}

STRATEGIES: dict[str, Callable[[StrategyTask], Strategy]] = {
    DEFAULT_STRATEGY: _frontier_strategy,
}
"""What makes a strategy of each name."""
