"""A roll-out: units are visited one after the other, each is observed and gets an option by a continuous action.

Sources: Wang, Liu, Lin, Lin, Han 2019, "HAQ: Hardware-Aware Automated Quantization with Mixed Precision" (an action in
[0, 1] for each layer, clipped to the budget); PocketFlow's bit allocation of its uniform and non-uniform quantization
learners (the one-hot layer in the state, layers in random order, a least and a greatest number of bits).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.search.choices import Choice, Unit
from amct_lite.search.strategies.task import StrategyTask

__all__ = ["Observation", "RollOut", "RollOuts", "option_bits"]

Observation = npt.NDArray[np.float32]

Decide = Callable[[int, Observation], float]
"""An action in [0, 1] for the unit of a number, from what is observed of it."""

PREFIXES = ("uniform", "codebook")
FLOAT_BITS = 32.0
GRID_BITS = 8.0

# Where along a unit's options its predicted error is observed.
PROFILE = np.linspace(0.0, 1.0, 4)

# Errors below count as this one: their logarithm has to end somewhere.
LEAST_ERROR = 1e-12


def option_bits(name: str) -> float:
    """Bits for each weight that an option's name stands for.

    Raises:
        ParameterError: The name says nothing of bits.

    Example:
        >>> [option_bits(name) for name in ("float", "int8", "codebook3", "uniform4", "nuq32")]
        [32.0, 8.0, 3.0, 4.0, 5.0]
    """
    if name in ("float", "int8"):
        return FLOAT_BITS if name == "float" else GRID_BITS
    for prefix in PREFIXES:
        if name.removeprefix(prefix).isdecimal():
            return float(name.removeprefix(prefix))
    if name.startswith("nuq") and name.removeprefix("nuq").isdecimal():
        return math.log2(int(name.removeprefix("nuq")))
    raise ParameterError(f"The name {name!r} of an option says nothing of bits.")


@dataclass(frozen=True)
class RollOut:
    """One visit to all units.

    Attributes:
        choice: What came out.
        observations: float32 array, shape (units, size of a state): in the order of the visit.
        actions: float32 array, shape (units,): the middles, in [0, 1], of the ranges that stand for the options taken.
    """

    choice: Choice
    observations: Observation
    actions: npt.NDArray[np.float32]


class RollOuts:
    """Makes roll-outs.

    Attributes:
        state_size: Numbers in an observation.
    """

    def __init__(self, task: StrategyTask, w_bit_min: float, w_bit_max: float) -> None:
        """Look at the units.

        Args:
            task: Units and objective.
            w_bit_min: Weights get no option of fewer bits,
            w_bit_max: nor of more.

        Raises:
            ParameterError: That leaves a unit without an option.
        """
        self._units, self._max_bytes = task.units, task.objective.max_bytes
        self._options = [_allowed(unit, w_bit_min, w_bit_max) for unit in task.units]
        self._sizes = [
            [unit.options[index].size_bytes for index in indices]
            for unit, indices in zip(task.units, self._options, strict=True)
        ]
        self._total = max(sum(sizes[-1] for sizes in self._sizes), 1)
        self._fixed = np.array([self._described(number) for number in range(len(task.units))], np.float32)
        self.state_size = self._fixed.shape[1] + 3

    def roll_out(self, order: Sequence[int], decide: Decide) -> RollOut:
        """Visit all units.

        Args:
            order: Their numbers.
            decide: Gives the actions.
        """
        chosen = [0] * len(self._units)
        observations, actions = [], []
        used, last_action = 0, 0.0
        least_rest = sum(sizes[0] for sizes in self._sizes)
        limit = self._total if self._max_bytes is None else self._max_bytes
        for number in order:
            sizes = self._sizes[number]
            least_rest -= sizes[0]
            left = limit - used - least_rest
            seen = np.append(self._fixed[number], [used / self._total, left / self._total, last_action])
            observation = seen.astype(np.float32)
            position = min(int(decide(number, observation) * len(sizes)), len(sizes) - 1)
            # Every later unit must still get its smallest option.
            while position > 0 and sizes[position] > left:
                position -= 1
            last_action = (position + 0.5) / len(sizes)
            used += sizes[position]
            chosen[number] = self._options[number][position]
            observations.append(observation)
            actions.append(last_action)
        return RollOut(tuple(chosen), np.stack(observations), np.array(actions, np.float32))

    def action(self, number: int, option: int) -> float:
        """The action that gives a unit an option, or the nearest one that is allowed."""
        indices = self._options[number]
        position = min(range(len(indices)), key=lambda p: abs(indices[p] - option))
        return (position + 0.5) / len(indices)

    def _described(self, number: int) -> npt.NDArray[np.float64]:
        """What is known of a unit before the visit."""
        unit = self._units[number]
        errors = np.log10([max(unit.options[index].error, LEAST_ERROR) for index in self._options[number]])
        profile = np.interp(PROFILE, np.linspace(0, 1, len(errors)), errors) / -math.log10(LEAST_ERROR)
        one_hot = np.eye(len(self._units))[number]
        num_weights = max(sum(other.num_weights for other in self._units), 1)
        share = self._sizes[number][-1] / self._total
        return np.concatenate([one_hot, profile, [unit.kind == "weight", unit.num_weights / num_weights, share]])


def _allowed(unit: Unit, w_bit_min: float, w_bit_max: float) -> list[int]:
    if unit.kind != "weight":
        return list(range(len(unit.options)))
    indices = [index for index, option in enumerate(unit.options) if w_bit_min <= option_bits(option.name) <= w_bit_max]
    if not indices:
        names = ", ".join(option.name for option in unit.options)
        raise ParameterError(
            f"w_bit_min = {w_bit_min:g} and w_bit_max = {w_bit_max:g} leave {unit.name!r} none of its options {names}."
        )
    return indices
