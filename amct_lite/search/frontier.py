"""The frontier: for every number of bytes the choice with the least predicted error, by dynamic programming."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.search.choices import Choice, Unit

__all__ = ["Frontier", "build_frontier"]

# More points than these are told apart by bytes alone, to one part in so many of the whole range.
MAX_POINTS = 2000


@dataclass(frozen=True)
class Frontier:
    """Choices from the smallest to the most exact; no other choice is both smaller and more exact than one of them.

    Attributes:
        choices: int64 array, shape (points, units): an option's number for each unit.
        sizes: int64 array, shape (points,): bytes, rising.
        errors: float64 array, shape (points,): predicted errors, falling.
    """

    choices: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    errors: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sizes)

    def choice(self, point: int) -> Choice:
        """One of the choices."""
        return tuple(self.choices[point].tolist())

    def only(self, points: Sequence[bool] | npt.NDArray[np.bool_]) -> "Frontier":
        """The part at which `points` is true."""
        mask = np.asarray(points, bool)
        return Frontier(self.choices[mask], self.sizes[mask], self.errors[mask])


def build_frontier(
    units: Sequence[Unit],
    errors: Sequence[npt.NDArray[np.float64]] | None = None,
    max_points: int = MAX_POINTS,
) -> Frontier:
    """Find the frontier of all choices, unit by unit.

    The multiple-choice knapsack problem by dynamic programming over states that nothing dominates (Kellerer, Pferschy,
    Pisinger 2004, "Knapsack Problems", sections 11.5 and 3.4). Exact while no more than `max_points` states are
    left after a unit; beyond that one state is kept for each of `max_points` equal steps of bytes.

    Args:
        units: The units.
        errors: Errors to use instead of the options' own: an array for each unit, of one error an option.
        max_points: States kept after each unit.
    """
    sizes, totals = np.zeros(1, np.int64), np.zeros(1)
    kept: list[npt.NDArray[np.int64]] = []
    for number, unit in enumerate(units):
        own = np.array([option.error for option in unit.options]) if errors is None else errors[number]
        bytes_of = np.array([option.size_bytes for option in unit.options], np.int64)
        all_sizes = (sizes[:, None] + bytes_of).ravel()
        all_totals = (totals[:, None] + own).ravel()
        states = _efficient(all_sizes, all_totals, max_points)
        kept.append(states)
        sizes, totals = all_sizes[states], all_totals[states]
    choices = np.empty((len(sizes), len(units)), np.int64)
    state = np.arange(len(sizes))
    for number in range(len(units) - 1, -1, -1):
        before = kept[number][state]
        state, choices[:, number] = np.divmod(before, len(units[number].options))
    return Frontier(choices, sizes, totals)


def _efficient(sizes: npt.NDArray[np.int64], errors: npt.NDArray[np.float64], max_points: int) -> npt.NDArray[np.int64]:
    """Which states nothing dominates, by rising size; thinned where they are too many."""
    order = np.lexsort((errors, sizes))
    least = np.minimum.accumulate(errors[order])
    falls = np.ones(len(order), bool)
    falls[1:] = least[1:] < least[:-1]
    order = order[falls]
    if len(order) <= max_points:
        return order
    offsets = sizes[order] - sizes[order[0]]
    step = offsets * max_points // (offsets[-1] + 1)
    ends = np.ones(len(order), bool)
    ends[1:-1] = step[2:] != step[1:-1]
    return order[ends]
