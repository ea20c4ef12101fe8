"""Strategies by name and goal."""

from collections.abc import Callable, Mapping

from amct_lite.errors import ParameterError
from amct_lite.search.objective import Goal
from amct_lite.search.strategies.binary_search import binary_search
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.strategies.smallest import smallest_that_satisfies
from amct_lite.search.strategies.task import StrategyTask

__all__ = ["DEFAULT_STRATEGY", "STRATEGIES", "MakeStrategy", "StrategyTask", "make_strategy"]

MakeStrategy = Callable[[StrategyTask], Strategy]

DEFAULT_STRATEGY = "frontier"


def _tpe(task: StrategyTask) -> Strategy:
    from amct_lite.search.strategies.optuna_strategy import tpe

    return tpe(task)


def _nsga2(task: StrategyTask) -> Strategy:
    from amct_lite.search.strategies.optuna_strategy import nsga2

    return nsga2(task)


def _ddpg(task: StrategyTask) -> Strategy:
    from amct_lite.learn.bit_allocation_agent import ddpg

    return ddpg(task)


STRATEGIES: Mapping[str, Mapping[Goal, MakeStrategy]] = {
    DEFAULT_STRATEGY: {
        Goal.SMALLEST: lambda task: smallest_that_satisfies(task.units, task.frontier, task.max_trials),
    },
    "BinarySearch": {Goal.SMALLEST: binary_search},
    "tpe": {Goal.SMALLEST: _tpe, Goal.BEST: _tpe},
    "nsga2": {Goal.SMALLEST: _nsga2, Goal.BEST: _nsga2, Goal.FRONT: _nsga2},
    "ddpg": {Goal.SMALLEST: _ddpg, Goal.BEST: _ddpg},
}
"""What makes a strategy of each name, for each goal that it can find."""


def make_strategy(strategy: str | MakeStrategy, task: StrategyTask) -> Strategy:
    """The strategy of a name, or what a function of one's own makes.

    Raises:
        ParameterError: There is none, or it is not made for the task's goal.
        OptionalDependencyError: It needs a package that is not installed.
    """
    if callable(strategy):
        return strategy(task)
    if strategy not in STRATEGIES:
        raise ParameterError(
            f"The 'strategy' parameter must be one of {', '.join(STRATEGIES)}, or a function that makes one."
            f" Got {strategy!r} instead."
        )
    goals, goal = STRATEGIES[strategy], task.objective.goal
    if goal not in goals:
        able = ", ".join(repr(other) for other, theirs in STRATEGIES.items() if goal in theirs) or "none"
        raise ParameterError(
            f"The strategy {strategy!r} has the objectives {', '.join(goals)}. Got {str(goal)!r} instead.",
            remedy=f"Strategies that have it: {able}.",
        )
    return goals[goal](task)
