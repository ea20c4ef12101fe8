"""What the metrics seen so far say about the layers: a linear model of the metric's fall, corrected trial by trial.

The fall of the metric is taken for k * sum over units of c_u * e_u, where e_u is the predicted error of unit u's option
and c_u is 1 give or take PRIOR_DEVIATION: how far the prediction is off for this unit. Each trial is one noisy sum;
the posterior of all c_u is in closed form (Bishop 2006, "Pattern Recognition and Machine Learning", equations 3.49 to
3.54, in the form for fewer trials than units).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.search.choices import Choice, Unit

__all__ = ["Sensitivities", "learn_sensitivities"]

Array = npt.NDArray[np.float64]

PRIOR_DEVIATION = 0.7
LEAST_FACTOR = 0.1

# How exactly the sum describes a metric: near the limit as a share of the limit, beyond it as a share of the distance,
# since a metric saturates.
NOISE_NEAR = 0.15
NOISE_BEYOND = 0.3


@dataclass(frozen=True)
class Sensitivities:
    """The posterior.

    Attributes:
        errors: For each unit an array of its options' errors, in units of the metric's fall.
        features: The same before correction: k * e_u.
        covariance: float64 array, shape (units, units): of the corrections c_u.
        noise: Deviation of a metric from the model.
    """

    errors: tuple[Array, ...]
    features: tuple[Array, ...]
    covariance: Array
    noise: float

    def falls(self, choices: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and deviation of the fall for some choices.

        Args:
            choices: shape (choices, units).
        """
        mean = _gather(self.errors, choices).sum(axis=1)
        features = _gather(self.features, choices)
        variance = np.einsum("ij,jk,ik->i", features, self.covariance, features)
        return mean, np.sqrt(np.maximum(variance, 0.0) + (self.noise / 2) ** 2)

    def chance(self, choices: npt.NDArray[np.int64], limit: float) -> Array:
        """The probability that the fall stays within a limit."""
        mean, deviation = self.falls(choices)
        deviation = np.maximum(deviation, np.finfo(float).tiny)
        return np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in (limit - mean) / deviation])

    def after(self, choice: npt.NDArray[np.int64]) -> "Sensitivities":
        """What will be known once a choice is evaluated: a smaller covariance, whatever comes out."""
        row = _gather(self.features, choice[None])[0]
        seen = self.covariance @ row
        gain = seen / (row @ seen + self.noise**2) if self.noise > 0 else 0.0 * seen
        return Sensitivities(self.errors, self.features, self.covariance - np.outer(gain, seen), self.noise)


def learn_sensitivities(
    units: Sequence[Unit], choices: Sequence[Choice], falls: Sequence[float], limit: float
) -> Sensitivities | None:
    """Fit the model to trials.

    Args:
        units: The units.
        choices: What was evaluated.
        falls: By how much the metric was worse than the float model's.
        limit: The fall around which the model shall be right, > 0.

    Returns:
        The posterior; None where the trials do not tell errors from falls.
    """
    finite = np.isfinite(falls)
    seen, fall = np.array(choices)[finite], np.array(falls, float)[finite]
    noise = NOISE_NEAR * limit + NOISE_BEYOND * np.abs(fall - limit)
    own = tuple(np.array([option.error for option in unit.options]) for unit in units)
    rows = _gather(own, seen)
    sums = rows.sum(axis=1) / noise
    scale = float(sums @ (fall / noise) / (sums @ sums)) if sums.any() else 0.0
    if not scale > 0.0:
        return None
    rows = scale * rows
    prior = PRIOR_DEVIATION**2
    spread = prior * rows @ rows.T + np.diag(noise**2)
    weights = np.linalg.solve(spread, np.column_stack([fall - rows.sum(axis=1), rows]))
    factors = np.maximum(1.0 + prior * rows.T @ weights[:, 0], LEAST_FACTOR)
    covariance = prior * np.eye(len(units)) - prior**2 * rows.T @ weights[:, 1:]
    features = tuple(scale * errors for errors in own)
    corrected = tuple(factor * errors for factor, errors in zip(factors, features, strict=True))
    return Sensitivities(corrected, features, covariance, NOISE_NEAR * limit)


def _gather(values: Sequence[Array], choices: npt.NDArray[np.int64]) -> Array:
    """For each choice and unit the value of the chosen option, shape (choices, units)."""
    return np.stack([of_unit[choices[:, number]] for number, of_unit in enumerate(values)], axis=1)
