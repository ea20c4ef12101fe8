"""Strategies by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amct_lite.errors import ParameterError
from amct_lite.search.choices import Unit
from amct_lite.search.frontier import Frontier
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.strategies.binary_search import binary_search
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.strategies.smallest import smallest_that_satisfies

__all__ = ["DEFAULT_STRATEGY", "STRATEGIES", "StrategyTask", "make_strategy"]

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


def _binary_search(task: StrategyTask) -> Strategy:
    """From everything as small as it gets to everything exact, the units with the greatest predicted error first."""
    quantized = (0,) * len(task.units)
    exact = tuple(len(unit.options) - 1 for unit in task.units)
    ranking = sorted(range(len(task.units)), key=lambda number: (-task.units[number].options[0].error, number))
    return binary_search(ranking, quantized, exact, task.max_trials)


_BY_GOAL: dict[Goal, Callable[[StrategyTask], Strategy]] = {
    Goal.SMALLEST: lambda task: smallest_that_satisfies(task.units, task.frontier, task.max_trials),
}

STRATEGIES: dict[str, Callable[[StrategyTask], Strategy]] = {
    DEFAULT_STRATEGY: _frontier_strategy,
    "BinarySearch": _binary_search,
}
"""What makes a strategy of each name."""


def make_strategy(name: str, task: StrategyTask) -> Strategy:
    """The strategy of a name.

    Raises:
        ParameterError: There is none.
    """
    if name not in STRATEGIES:
        raise ParameterError(f"The 'strategy' parameter must be one of {', '.join(STRATEGIES)}. Got {name!r} instead.")
    return STRATEGIES[name](task)
