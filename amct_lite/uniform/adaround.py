"""AdaRound: for each weight up or down, whichever serves the layer's output.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv 2004.10568, equations 21 to
24. The objective there is estimated from mini-batches by a deep learning framework; a layer's squared output error is
the quadratic form tr(D H D') of its weights' error D, whose gradient is 2 D H: numpy is enough, nothing is random.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["AdaRoundSettings", "adaround_levels"]

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

# Stretch of the sigmoid, equation 23: without it a variable would need forever to reach 0 or 1.
GAMMA, ZETA = -0.1, 1.1

# Adam (Kingma & Ba 2015, arXiv 1412.6980), algorithm 1.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-12


@dataclass(frozen=True)
class AdaRoundSettings:
    """How the rounding variables are learned.

    Attributes:
        iterations: Steps of Adam.
        learning_rate: Of Adam, for variables whose sigmoid is about the fraction rounded off.
        warm_up: Share of the steps before the regularizer pushes variables to 0 or 1.
        regularization: Weight of that push, relative to the error that rounding to the nearest level makes.
        first_power: The regularizer's exponent, annealed from here ...
        last_power: ... to here.
    """

    iterations: int = 600
    learning_rate: float = 0.05
    warm_up: float = 0.2
    regularization: float = 10.0
    first_power: float = 20.0
    last_power: float = 2.0


def adaround_levels(
    weight: Float64Array,
    quadratic: Float64Array,
    scales: Float64Array,
    *,
    num_bits: int,
    settings: AdaRoundSettings | None = None,
) -> npt.NDArray[np.int8]:
    """Chooses for each weight the level below or above it.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K), positive definite: second moments of the layer's inputs.
        scales: float64 array, shape (groups, rows).
        num_bits: Width of a level, 2 to 8.
        settings: None for the defaults.

    Returns:
        int8 levels of the weight's shape; a row whose error would be greater than with the nearest levels has those.
    """
    chosen = settings or AdaRoundSettings()
    low, high = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1
    normal = weight / scales[:, :, None]
    nearest = np.clip(np.rint(normal), low, high)
    start = _row_errors(nearest - normal, quadratic)
    floors = np.clip(np.floor(normal), low, high - 1)
    # Each row in units of the error it starts with: all learn alike, whatever their scale.
    form = (quadratic / np.trace(quadratic, axis1=1, axis2=2)[:, None, None]).astype(np.float32)
    up = _learn((normal - floors).astype(np.float32), form, chosen) >= 0.5
    found = floors + up
    better = _row_errors(found - normal, quadratic) < start
    return np.where(better[:, :, None], found, nearest).astype(np.int8)


def _learn(fractions: Float32Array, form: Float32Array, settings: AdaRoundSettings) -> Float32Array:
    """Rounding variables h in [0, 1] for the fractions above the lower level, shape (groups, rows, K)."""
    share = np.clip((fractions - GAMMA) / (ZETA - GAMMA), 0.01, 0.99)
    variables = np.log(share / (1.0 - share)).astype(np.float32)
    first, second = np.zeros_like(variables), np.zeros_like(variables)
    # What a rounded-off fraction costs at random, 1/12 a weight: the scale on which the push is weighed.
    push = settings.regularization / (12.0 * fractions.shape[-1])
    warm = int(settings.warm_up * settings.iterations)
    for step in range(1, settings.iterations + 1):
        sigmoid = 1.0 / (1.0 + np.exp(-variables))
        stretched = sigmoid * (ZETA - GAMMA) + GAMMA
        rounding = np.clip(stretched, 0.0, 1.0)
        gradient = 2.0 * ((rounding - fractions) @ form)
        if step > warm:
            progress = (step - warm) / max(settings.iterations - warm, 1)
            power = settings.last_power + 0.5 * (settings.first_power - settings.last_power) * (
                1.0 + np.cos(np.pi * progress)
            )
            centred = 2.0 * rounding - 1.0
            gradient -= push * 2.0 * power * np.sign(centred) * np.abs(centred) ** (power - 1.0)
        inside = (stretched > 0.0) & (stretched < 1.0)
        gradient *= inside * (sigmoid * (1.0 - sigmoid) * (ZETA - GAMMA))
        first += (1.0 - BETA1) * (gradient - first)
        second += (1.0 - BETA2) * (np.square(gradient) - second)
        mean, spread = first / (1.0 - BETA1**step), second / (1.0 - BETA2**step)
        variables -= settings.learning_rate * mean / (np.sqrt(spread) + EPSILON)
    rounding = np.clip((1.0 / (1.0 + np.exp(-variables))) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)
    return np.asarray(rounding, np.float32)


def _row_errors(error: Float64Array, quadratic: Float64Array) -> Float64Array:
    return np.asarray(np.sum(error * (error @ quadratic), axis=2))
