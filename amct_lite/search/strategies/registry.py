"""Strategies by name and goal."""

from collections.abc import Callable, Mapping

from amct_lite.errors import ParameterError
from amct_lite.search.objective import Goal
from amct_lite.search.strategies.best_within_bytes import best_within_bytes
from amct_lite.search.strategies.binary_search import binary_search
from amct_lite.search.strategies.front import whole_front
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.strategies.smallest import smallest_that_satisfies
from amct_lite.search.strategies.task import StrategyTask

__all__ = ["DEFAULT_STRATEGY", "STRATEGIES", "MakeStrategy", "StrategyTask", "check_strategy", "make_strategy"]

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
    },
    "BinarySearch": {Goal.SMALLEST: binary_search},
    "tpe": {Goal.SMALLEST: _tpe, Goal.BEST: _tpe},
    "nsga2": {Goal.SMALLEST: _nsga2, Goal.BEST: _nsga2, Goal.FRONT: _nsga2},
    "ddpg": {Goal.SMALLEST: _ddpg, Goal.BEST: _ddpg},
}
"""What makes a strategy of each name, for each goal that it can find."""


def check_strategy(verb: str, strategy: str | MakeStrategy, goal: Goal) -> None:
    """Refuse a strategy that there is not, or that is not made for a goal.

    Args:
        verb: For messages: the function that was called.
        strategy: A name, or a function that makes a strategy, which is taken as it is.
        goal: What is to be found.

    Raises:
        ParameterError: See above.
    """
    if callable(strategy):
        return
    if strategy not in STRATEGIES:
        raise ParameterError(
            f"The 'strategy' parameter of {verb} must be one of {', '.join(STRATEGIES)}, or a function that makes one."
            f" Got {strategy!r} instead."
        )
    if goal not in STRATEGIES[strategy]:
        able = ", ".join(repr(other) for other, goals in STRATEGIES.items() if goal in goals)
        raise ParameterError(
            f"The strategy {strategy!r} has the objectives {', '.join(STRATEGIES[strategy])}."
            f" Got {str(goal)!r} instead.",
            remedy=f"Strategies that have it: {able}.",
        )


def make_strategy(strategy: str | MakeStrategy, task: StrategyTask) -> Strategy:
    """The strategy of a name, or what a function of one's own makes.

    Raises:
        ParameterError: There is none, or it is not made for the task's goal.
        OptionalDependencyError: It needs a package that is not installed.
    """
    check_strategy("make_strategy", strategy, task.objective.goal)
    return strategy(task) if callable(strategy) else STRATEGIES[strategy][task.objective.goal](task)
