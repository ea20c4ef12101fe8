"""AMCT's strategy: quantize everything, then roll the most sensitive units back, as few as a bisection finds.

Source: "BinarySearch" of AMCT's `accuracy_based_auto_calibration`. It assumes that accuracy rises with every unit that
is rolled back, and knows nothing of bytes.
"""

from collections.abc import Sequence

from amct_lite.search.choices import Choice
from amct_lite.search.strategies.replayed import Look, ReplayedStrategy

__all__ = ["binary_search"]


def binary_search(ranking: Sequence[int], quantized: Choice, exact: Choice, max_trials: int) -> ReplayedStrategy:
    """The strategy.

    Args:
        ranking: Numbers of the units, the most sensitive first.
        quantized: The choice in which everything is quantized; it is evaluated first.
        exact: What units are rolled back to. All of them together are the float model, which satisfies unseen.
        max_trials: Choices evaluated at most.
    """

    def program(look: Look) -> str:
        if look(quantized).satisfied:
            return ""
        found = False
        left, right = 0, len(ranking) - 1
        while left <= right:
            middle = (left + right) // 2
            rolled_back = set(ranking[: middle + 1])
            choice = tuple((exact if n in rolled_back else quantized)[n] for n in range(len(quantized)))
            if choice == exact or look(choice).satisfied:
                found = found or choice != exact
                right = middle - 1
            else:
                left = middle + 1
        return "" if found else "Nothing but the float model satisfies with this ranking: allow a larger drop."

    return ReplayedStrategy(
        program, max_trials, otherwise="With more evaluations fewer layers would be rolled back to float."
    )
