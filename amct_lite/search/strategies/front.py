"""The front: for every size the best metric, as far as the budget goes.

The ends of the frontier of predicted error over bytes come first; then, in rounds, the middles of the widest gaps, in
bytes and in metric, on the frontier as the metrics seen so far correct it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from amct_lite.search.choices import Choice, Unit, choice_bytes
from amct_lite.search.frontier import Frontier, build_frontier
from amct_lite.search.sensitivity import learn_sensitivities
from amct_lite.search.strategies.proposals import ROUND_POINTS, ROUND_SIZE, remembered_rounds
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.replayed import Look, ReplayedStrategy

__all__ = ["whole_front"]

# Neighbours nearer than this, in bytes and in metric together, relative to the whole front, need no more between them.
LEAST_GAP = 0.01


def whole_front(
    units: Sequence[Unit], frontier: Frontier, max_trials: int, *, greater_is_better: bool
) -> ReplayedStrategy:
    """The strategy.

    Args:
        units: What is chosen.
        frontier: Of the units.
        max_trials: Choices evaluated at most.
        greater_is_better: Whether a greater metric is a better one.
    """
    worse = -1.0 if greater_is_better else 1.0
    next_round = remembered_rounds(lambda seen: _propose(units, frontier, seen, worse))

    def program(look: Look) -> str:
        look.at_all([frontier.choice(0), frontier.choice(len(frontier) - 1)])
        while proposal := next_round(look):
            look.at_all(proposal)
        return ""

    return ReplayedStrategy(
        program, max_trials, otherwise="With more evaluations the gaps in the front would be filled."
    )


def _propose(
    units: Sequence[Unit], frontier: Frontier, seen: Mapping[Choice, Outcome], worse: float
) -> tuple[Choice, ...]:
    corrected = _corrected(units, frontier, seen, worse)
    points = sorted((choice_bytes(units, choice), worse * outcome.change) for choice, outcome in seen.items())
    spread = max(fall for _, fall in points) - min(fall for _, fall in points)
    width = math.log(points[-1][0] / points[0][0])
    gaps = []
    for (size, fall), (next_size, next_fall) in itertools.pairwise(points):
        bytes_apart = math.log(next_size / size) / width if width > 0 else 0.0
        metric_apart = abs(fall - next_fall) / spread if 0 < spread < math.inf else 0.0
        gaps.append((bytes_apart * (LEAST_GAP + metric_apart), math.sqrt(size * next_size), size, next_size))
    found: list[Choice] = []
    for gap, middle, size, next_size in sorted(gaps, reverse=True):
        if len(found) == ROUND_SIZE or gap < LEAST_GAP**2:
            break
        point = int(np.argmin(np.abs(np.log(corrected.sizes / middle))))
        choice = corrected.choice(point)
        if size < corrected.sizes[point] < next_size and choice not in seen and choice not in found:
            found.append(choice)
    return tuple(found)


def _corrected(units: Sequence[Unit], frontier: Frontier, seen: Mapping[Choice, Outcome], worse: float) -> Frontier:
    """The frontier by what the metrics say, in the part that the given one spans."""
    falls = [worse * outcome.change for outcome in seen.values()]
    positive = sorted(fall for fall in falls if 0 < fall < math.inf)
    if not positive:
        return frontier
    model = learn_sensitivities(units, list(seen), falls, positive[len(positive) // 2])
    if model is None:
        return frontier
    found = build_frontier(units, model.errors, ROUND_POINTS)
    return found.only((found.sizes >= frontier.sizes[0]) & (found.sizes <= frontier.sizes[-1]))
