"""What strategies that work in rounds have in common.

A round is a few choices that are picked together from what was seen before it, and none of which depends on another's
outcome. It has the same number of choices whatever the number of workers, so that all find the same.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from amct_lite.search.choices import Choice, Unit
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.replayed import Look

__all__ = ["ROUND_POINTS", "ROUND_SIZE", "Propose", "remembered_rounds", "sizes_of", "steps_down"]

ROUND_SIZE = 4

# Points of the corrected frontier from which a round is picked.
ROUND_POINTS = 1000

Propose = Callable[[Mapping[Choice, Outcome]], tuple[Choice, ...]]
"""From what was seen to the choices of the next round; none where nothing is worth an evaluation."""


def remembered_rounds(propose: Propose) -> Callable[[Look], tuple[Choice, ...]]:
    """The next round after what a program has seen; a program that is replayed gets the same rounds without work."""
    remembered = lru_cache(maxsize=None)(lambda seen: propose(dict(seen)))
    return lambda look: remembered(tuple(look.outcomes().items()))


def sizes_of(units: Sequence[Unit], choices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bytes of some choices, shape (choices, units)."""
    total = np.zeros(len(choices), np.int64)
    for number, unit in enumerate(units):
        total += np.array([option.size_bytes for option in unit.options], np.int64)[choices[:, number]]
    return total


def steps_down(choice: Choice) -> npt.NDArray[np.int64]:
    """The choices in which one unit is one step smaller, shape (units that can be, units)."""
    here = np.array(choice, np.int64)
    steps = np.eye(len(here), dtype=np.int64)[here > 0]
    return here - steps
