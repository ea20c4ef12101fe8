"""AMCT's strategy: quantize everything, then roll the most sensitive layers back to float, as few as a bisection finds.

Source: "BinarySearch" of AMCT's `accuracy_based_auto_calibration`. AMCT ranks layers by the cosine similarity of
their outputs; here the predicted error of their quantization stands for it. It assumes that accuracy rises with every
layer that is rolled back, and knows nothing of bytes.
"""

from collections.abc import Callable, Sequence

from amct_lite.search.choices import Choice, Unit
from amct_lite.search.strategies.replayed import Look, Program, ReplayedStrategy
from amct_lite.search.strategies.task import StrategyTask

__all__ = ["binary_search", "most_sensitive_first", "plain_int8", "roll_back"]


def binary_search(task: StrategyTask) -> ReplayedStrategy:
    """The strategy, between plain int8 and the most exact options."""
    quantized = plain_int8(task.units)
    exact = tuple(len(unit.options) - 1 for unit in task.units)
    program = roll_back(most_sensitive_first(task.units, quantized), quantized, exact, task.quantizes)
    return ReplayedStrategy(
        program, task.max_trials, otherwise="With more evaluations fewer layers would be rolled back to float."
    )


def plain_int8(units: Sequence[Unit]) -> Choice:
    """Each unit's int8, or its smallest option where int8 is not among them."""
    names = [[option.name for option in unit.options] for unit in units]
    return tuple(of_unit.index("int8") if "int8" in of_unit else 0 for of_unit in names)


def most_sensitive_first(units: Sequence[Unit], quantized: Choice) -> list[int]:
    """Numbers of the units, those with the greatest predicted error in a choice first."""
    errors = [unit.options[index].error for unit, index in zip(units, quantized, strict=True)]
    return sorted(range(len(units)), key=lambda number: (-errors[number], number))


def roll_back(
    ranking: Sequence[int], quantized: Choice, in_float: Choice, quantizes: Callable[[Choice], bool]
) -> Program:
    """The bisection as a program: how many units of a ranking must be rolled back.

    The last choice that satisfies is the one that it finds, and the smallest of those it looked at that satisfy.

    Args:
        ranking: Numbers of units, the most sensitive first.
        quantized: The choice in which everything is quantized.
        in_float: The choice that is rolled back to.
        quantizes: Whether anything is quantized in a choice: what is all float satisfies without a look, for it is
            the model that all others are compared with.
    """

    def program(look: Look) -> str:
        if look(quantized).satisfied:
            return ""
        found = False
        left, right = 0, len(ranking) - 1
        while left <= right:
            middle = (left + right) // 2
            rolled_back = set(ranking[: middle + 1])
            choice = tuple(
                (in_float if number in rolled_back else quantized)[number] for number in range(len(quantized))
            )
            is_float = not quantizes(choice)
            if is_float or look(choice).satisfied:
                right = middle - 1
                found = found or not is_float
            else:
                left = middle + 1
        return "" if found else "Nothing but the float model satisfies with this ranking: allow a larger drop."

    return program
