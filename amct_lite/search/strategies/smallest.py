"""The default strategy: the smallest choice that satisfies, in about twenty evaluations.

1. The frontier of predicted error over bytes is one ordered list from the smallest choice to the most exact one; it is
   bisected. Where the metric is not monotone along it the result still satisfies: only what was evaluated and
   passed is ever taken.
2. Every metric corrects the prediction, unit by unit (`search.sensitivity`). In rounds, the choices are evaluated from
   which the most bytes are expected to be saved: the probability to satisfy times the bytes. It is the expected
   improvement of Bayesian optimization (Jones, Schonlau, Welch 1998, "Efficient Global Optimization of
   Expensive Black-Box Functions"), over an exact frontier instead of a sampled space.
3. Where the model sees nothing to gain, the test itself is asked: groups of units are compressed one step further, and
   groups that fail are left out until the share of bytes to save is halved (group testing).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from amct_lite.search.choices import Choice, Unit, choice_bytes
from amct_lite.search.frontier import Frontier, build_frontier
from amct_lite.search.sensitivity import learn_sensitivities
from amct_lite.search.strategies.proposals import ROUND_POINTS, ROUND_SIZE, remembered_rounds, sizes_of, steps_down
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.replayed import Look, ReplayedStrategy

__all__ = ["bisect_frontier", "propose_round", "refine_in_groups", "smallest_that_satisfies"]

# The bisection ends where neighbours differ by less than this share of bytes: the model does the rest.
COARSE_STEP = 0.02

# Expected shares of bytes below which a round, and savings below which a smaller file, is nobody's concern.
LEAST_GAIN = 0.0008
LEAST_STEP = 0.002

# The first and the last share of bytes that a group of units has to save.
FIRST_SHARE = 0.02
LAST_SHARE = 0.005

# How often a group passes, seen over the synthetic networks of the tests.
GROUP_CHANCE = 0.25


def smallest_that_satisfies(units: Sequence[Unit], frontier: Frontier, max_trials: int) -> ReplayedStrategy:
    """The strategy.

    Args:
        units: What is chosen.
        frontier: Of the units; the part in which the result shall lie.
        max_trials: Choices evaluated at most.
    """
    next_round = remembered_rounds(lambda seen: propose_round(units, seen))

    def program(look: Look) -> str:
        best = bisect_frontier(frontier, look)
        if best is None:
            return (
                "Not even the most exact choice satisfies: allow a larger drop, or let sensitive layers stay float"
                ' (quant_enable false, or "float" in their search_space).'
            )
        if best == frontier.choice(0):
            return ""
        while proposal := next_round(look):
            look.at_all(proposal)
        best = min((c for c, seen in look.seen.items() if seen.satisfied), key=lambda c: choice_bytes(units, c))
        refine_in_groups(units, best, look)
        return ""

    return ReplayedStrategy(
        program, max_trials, otherwise="With more evaluations smaller choices near the best one would be tried."
    )


def bisect_frontier(frontier: Frontier, look: Look) -> Choice | None:
    """Find a choice that satisfies while one that is COARSE_STEP smaller does not.

    Args:
        frontier: At least one choice.
        look: The test.

    Returns:
        The choice, or None where not even the most exact one passes.
    """
    fails, passes = -1, len(frontier)
    while passes - fails > 1:
        inside = fails >= 0 and passes < len(frontier)
        if inside and frontier.sizes[passes] - frontier.sizes[fails] < COARSE_STEP * frontier.sizes[passes]:
            break
        middle = (fails + passes) // 2
        if look(frontier.choice(middle)).satisfied:
            passes = middle
        else:
            fails = middle
    return frontier.choice(passes) if passes < len(frontier) else None


def propose_round(units: Sequence[Unit], seen: Mapping[Choice, Outcome]) -> tuple[Choice, ...]:
    """The choices that are worth an evaluation, up to ROUND_SIZE of them; none where too little is to be gained."""
    choices = list(seen)
    limit, falls = _falls(list(seen.values()))
    model = learn_sensitivities(units, choices, falls, limit) if limit > 0 else None
    if model is None:
        return ()
    start = min((c for c, outcome in seen.items() if outcome.satisfied), key=lambda c: choice_bytes(units, c))
    frontier = build_frontier(units, model.errors, ROUND_POINTS)
    pool = np.concatenate([frontier.choices, steps_down(start)])
    sizes = sizes_of(units, pool)
    best = choice_bytes(units, start)
    free = np.array([tuple(choice.tolist()) not in seen for choice in pool], bool)
    found: list[Choice] = []
    while len(found) < ROUND_SIZE:
        chance = model.chance(pool, limit)
        gain = np.where(free & (sizes < (1 - LEAST_STEP) * best), chance * (1 - sizes / best), 0.0)
        point = int(np.argmax(gain))
        if gain[point] < (LEAST_GAIN if not found else LEAST_GAIN / 8):
            break
        found.append(tuple(pool[point].tolist()))
        free[(pool == pool[point]).all(axis=1)] = False
        model = model.after(pool[point])
        # What probably passes is what the next one of the round has to beat.
        best = int(sizes[point]) if chance[point] >= 0.5 else best
    return tuple(found)


def _falls(outcomes: Sequence[Outcome]) -> tuple[float, list[float]]:
    """The fall that seems to be allowed, half-way between the verdicts, and each outcome's own; > 0 is worse."""
    failed = [o.change for o in outcomes if not o.satisfied and np.isfinite(o.change)]
    passed = [o.change for o in outcomes if o.satisfied and np.isfinite(o.change)]
    if not failed or not passed:
        return 0.0, []
    worse = -1.0 if sum(failed) / len(failed) < sum(passed) / len(passed) else 1.0
    limit = (min(worse * change for change in failed) + max(worse * change for change in passed)) / 2
    return limit, [worse * outcome.change for outcome in outcomes]


def refine_in_groups(units: Sequence[Unit], best: Choice, look: Look) -> Choice:
    """Compress a choice that satisfies further, in groups of units, until no worthwhile step passes.

    A group saves at least a given share of the bytes; units of a group that fails are left out until the share is
    halved.

    Args:
        units: The units.
        best: A choice that satisfies.
        look: The test.

    Returns:
        A choice that satisfies and is not larger.
    """
    share = FIRST_SHARE
    while share >= LAST_SHARE:
        suspects: set[int] = set()
        while group := _cheapest_group(units, best, share * choice_bytes(units, best), suspects):
            smaller = tuple(index - (number in group) for number, index in enumerate(best))
            if look(smaller, GROUP_CHANCE).satisfied:
                best = smaller
            else:
                suspects |= group
        share /= 2
    return best


def _cheapest_group(units: Sequence[Unit], choice: Choice, bytes_to_save: float, suspects: set[int]) -> set[int]:
    """Units whose next smaller options save enough bytes together, those that add least error per byte first.

    Returns:
        The units' numbers; none where all that are left do not save enough.
    """

    def step(number: int) -> tuple[int, float]:
        now, smaller = (units[number].options[choice[number] - back] for back in (0, 1))
        saved = now.size_bytes - smaller.size_bytes
        return saved, (smaller.error - now.error) / saved

    movable = [number for number, index in enumerate(choice) if index > 0 and number not in suspects]
    group: set[int] = set()
    saved_bytes = 0
    for number in sorted(movable, key=lambda n: (step(n)[1], n)):
        group.add(number)
        saved_bytes += step(number)[0]
        if saved_bytes >= bytes_to_save:
            return group
    return set()
