"""Synthetic networks whose smallest satisfying choice is known: tests and benchmarks try search strategies on them."""

import math
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.search.choices import Choice, Option, Unit
from amct_lite.search.frontier import build_frontier
from amct_lite.search.strategies.protocol import Outcome

__all__ = ["SyntheticEvaluator", "allowed_fall", "synthetic_network"]

OPTIONS = {"codebook2": 2, "codebook4": 4, "int8": 8, "float": 32}

Errors = npt.NDArray[np.float64]


def synthetic_network(seed: int, layers: int = 12) -> tuple[list[Unit], list[Errors]]:
    """Units with predicted errors, and what every option truly costs: the prediction is off by a factor each."""
    rng = random.Random(seed)
    units, truth = [], []
    for number in range(layers):
        weights, sensitivity = int(math.exp(rng.gauss(9, 1.2))), math.exp(rng.gauss(0, 1))
        layer_factor = math.exp(rng.gauss(0, 0.5))
        options, true_errors = [], []
        for name, bits in OPTIONS.items():
            error = 0.0 if name == "float" else sensitivity * 4.0**-bits * math.exp(rng.gauss(0, 0.1))
            options.append(Option(name, weights * bits // 8, error))
            true_errors.append(error * layer_factor * math.exp(rng.gauss(0, 0.2)))
        units.append(Unit(f"u{number}", "weight", (f"u{number}",), tuple(options), weights, weights))
        truth.append(np.array(true_errors))
    return units, truth


def allowed_fall(seed: int) -> float:
    """The fall of the metric that a network's test allows."""
    return random.Random(1000 + seed).choice([0.005, 0.01, 0.02, 0.03])


class SyntheticEvaluator:
    """Gives 1 minus a saturating function of the true error, and says yes down to a limit.

    Attributes:
        seen: What was evaluated, and what came of it.
    """

    def __init__(
        self, units: Sequence[Unit], truth: Sequence[Errors], limit: float, noise: float = 0.0, seed: int = 0
    ) -> None:
        self.units, self.truth, self.limit, self.noise = units, truth, limit, noise
        self.rng = random.Random(seed)
        self.seen: dict[Choice, Outcome] = {}

    def __call__(self, choice: Choice) -> Outcome:
        """Evaluate a choice, which was not evaluated before."""
        assert choice not in self.seen, "evaluated twice"
        fall = 1 - math.exp(-sum(errors[i] for errors, i in zip(self.truth, choice, strict=True)))
        fall += self.rng.gauss(0, self.noise * self.limit)
        self.seen[choice] = Outcome(1 - fall, fall <= self.limit, -fall)
        return self.seen[choice]

    def optimum(self) -> int:
        """Bytes of the smallest choice that satisfies."""
        exact = build_frontier(self.units, self.truth, max_points=10**6)
        return int(exact.sizes[exact.errors <= -math.log(1 - self.limit)].min())
