"""What a strategy is made for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from amct_lite.search.choices import Choice, Unit, choice_bytes
from amct_lite.search.frontier import Frontier
from amct_lite.search.objective import Objective

__all__ = ["StrategyTask", "starting_choices"]


def _any_choice(_choice: Choice) -> bool:
    return True


@dataclass(frozen=True)
class StrategyTask:
    """What a strategy is made for.

    Attributes:
        units: What is chosen.
        frontier: The choices with the least predicted error for their bytes; at least one layer is quantized in each.
        objective: What is to be found.
        max_trials: Choices that may be told, the float model not among them.
        quantizes: Whether at least one layer is quantized in a choice: no other choice may be asked for.
    """

    units: Sequence[Unit]
    frontier: Frontier
    objective: Objective
    max_trials: int
    quantizes: Callable[[Choice], bool] = _any_choice

    @property
    def num_choices(self) -> int:
        """How many choices there are."""
        product = 1
        for unit in self.units:
            product *= len(unit.options)
        return product

    def excess_bytes(self, choice: Choice) -> int:
        """By how much a choice is larger than the objective allows; 0 where it is not."""
        limit = self.objective.max_bytes
        return 0 if limit is None else max(choice_bytes(self.units, choice) - limit, 0)

    def worth_a_trial(self, choice: Choice) -> bool:
        """Whether an evaluation can tell anything: neither the float model nor larger than allowed."""
        return self.excess_bytes(choice) == 0 and self.quantizes(choice)


def starting_choices(task: StrategyTask, count: int) -> list[Choice]:
    """Choices from which a sampler starts: evenly spread over the logarithm of bytes, the most exact one first.

    Args:
        task: The task; what its objective does not allow is left out.
        count: How many at most.
    """
    worth = [task.worth_a_trial(task.frontier.choice(point)) for point in range(len(task.frontier))]
    frontier = task.frontier.only(worth)
    if len(frontier) == 0:
        return []
    logarithms = np.log(np.maximum(frontier.sizes.astype(np.float64), 1.0))
    wanted = np.linspace(logarithms[-1], logarithms[0], count)
    points = np.abs(wanted[:, None] - logarithms).argmin(axis=1)
    return [frontier.choice(point) for point in dict.fromkeys(points.tolist())]
