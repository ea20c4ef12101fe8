"""The best metric within a number of bytes.

It starts at the choice with the least predicted error that fits. Every metric corrects the prediction, unit by unit
(`search.sensitivity`); in rounds, the choices are evaluated from which the largest improvement of the metric is
expected (Jones, Schonlau, Welch 1998, "Efficient Global Optimization of Expensive Black-Box Functions", equation 15).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.search.choices import Choice, Unit
from amct_lite.search.frontier import Frontier, build_frontier
from amct_lite.search.sensitivity import learn_sensitivities
from amct_lite.search.strategies.proposals import ROUND_POINTS, ROUND_SIZE, remembered_rounds, sizes_of
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.replayed import Look, ReplayedStrategy

__all__ = ["best_within_bytes"]

# An expected improvement below this share of what is lost is nobody's concern.
LEAST_GAIN = 0.01

# The corrected frontier's points nearest to the bytes that are allowed, from which a round is picked.
NEAREST_POINTS = 100


def best_within_bytes(
    units: Sequence[Unit], frontier: Frontier, max_bytes: int, max_trials: int, *, greater_is_better: bool
) -> ReplayedStrategy:
    """The strategy.

    Args:
        units: What is chosen.
        frontier: Of the units.
        max_bytes: The most that a choice may take.
        max_trials: Choices evaluated at most.
        greater_is_better: Whether a greater metric is a better one.
    """
    within = frontier.only(frontier.sizes <= max_bytes)
    worse = -1.0 if greater_is_better else 1.0
    next_round = remembered_rounds(lambda seen: _propose(units, seen, max_bytes, worse))

    def program(look: Look) -> str:
        if not len(within):
            return (
                f"The smallest choice takes {int(frontier.sizes[0]):,} bytes, more than the {max_bytes:,} allowed:"
                " allow more, or offer smaller options."
            )
        # The first three differ in bytes too, so that there is something to learn from.
        look.at_all([within.choice(point) for point in _spread(len(within))])
        while proposal := next_round(look):
            look.at_all(proposal)
        return ""

    return ReplayedStrategy(
        program, max_trials, otherwise="With more evaluations other choices of as many bytes would be tried."
    )


def _spread(length: int) -> list[int]:
    """The last point of some, and points at 9 and 8 tenths of the way to it."""
    return list(dict.fromkeys([length - 1, (length - 1) * 9 // 10, (length - 1) * 8 // 10]))


def _propose(units: Sequence[Unit], seen: Mapping[Choice, Outcome], max_bytes: int, worse: float) -> tuple[Choice, ...]:
    falls = [worse * outcome.change for outcome in seen.values()]
    finite = [fall for fall in falls if math.isfinite(fall)]
    if not finite or min(finite) <= 0:
        return ()
    best = min(finite)
    model = learn_sensitivities(units, list(seen), falls, best)
    if model is None:
        return ()
    frontier = build_frontier(units, model.errors, ROUND_POINTS)
    frontier = frontier.only(frontier.sizes <= max_bytes)
    start = min(seen, key=lambda choice: (worse * seen[choice].change, choice))
    pool = np.concatenate([frontier.choices[-NEAREST_POINTS:], _exchanges(units, start, max_bytes)])
    free = np.array([tuple(choice.tolist()) not in seen for choice in pool], bool)
    found: list[Choice] = []
    while len(found) < ROUND_SIZE:
        mean, deviation = model.falls(pool)
        gain = np.where(free, _expected_improvement(best, mean, deviation), 0.0)
        point = int(np.argmax(gain))
        if gain[point] < (LEAST_GAIN if not found else LEAST_GAIN / 8) * min(finite):
            break
        found.append(tuple(pool[point].tolist()))
        free[(pool == pool[point]).all(axis=1)] = False
        model = model.after(pool[point])
        best = min(best, float(mean[point]))
    return tuple(found)


def _exchanges(units: Sequence[Unit], choice: Choice, max_bytes: int) -> npt.NDArray[np.int64]:
    """The choices in which one unit is a step more exact, and at most one other a step smaller, that fit."""
    here = np.array(choice, np.int64)
    one = np.eye(len(units), dtype=np.int64)
    up = one[here < [len(unit.options) - 1 for unit in units]]
    down = np.concatenate([np.zeros((1, len(units)), np.int64), one[here > 0]])
    moved = (here + up[:, None] - down[None]).reshape(-1, len(units))
    fits = sizes_of(units, moved) <= max_bytes
    return np.asarray(moved[fits], np.int64)


def _expected_improvement(
    best: float, mean: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """E[max(best - fall, 0)] for falls that are normally distributed."""
    deviation = np.maximum(deviation, np.finfo(float).tiny)
    z = (best - mean) / deviation
    density = np.exp(-np.minimum(z**2 / 2, 700.0)) / math.sqrt(2 * math.pi)
    chance = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    return np.asarray((best - mean) * chance + deviation * density)
