"""How far a weight may be fitted to samples: as far as the other half of them gains by it.

Two-fold cross-validation of the ridge (Stone 1974, "Cross-validatory choice and assessment of statistical
predictions"; Hastie et al., "The Elements of Statistical Learning", section 7.10). What quantization does to a layer's
input is small, correlated along the network, and different from sample to sample, so that a fixed ridge takes back too
little of it in front and learns the samples by heart further back. The same holds for what makes up for rounding.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.gptq import inverse_factor
from amct_lite.codebook.second_moments import (
    LEAST_DAMPING,
    SecondMoments,
    asymmetric_target,
    damped,
    mean_of,
    scaled_inputs,
    shrunk,
)

__all__ = ["held_out_damping", "held_out_form", "held_out_target"]

Float64Array = npt.NDArray[np.float64]
Fit = Callable[[int, float], Float64Array]
"""From a half of the samples and a ridge to the rows fitted to it."""

# Shares of the mean diagonal, ascending. The largest all but keeps the float weight.
DAMPINGS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

# Neighbouring pixels are so much alike that the directions in which they differ, where noise of quantization is to be
# told from edges, have a thousandth of the mean diagonal and less.
FINE_DAMPINGS = (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, *DAMPINGS)

# Shares of the correlations that are not believed, ascending.
SHRINKAGES = (0.0, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)


def held_out_damping(weight: Float64Array, folds: Sequence[SecondMoments]) -> float:
    """The ridge with which the target fitted to each half of the samples serves the other best.

    Args:
        weight: float64 array, shape (groups, rows, K).
        folds: Moments of the two halves. One alone says nothing of others, and gets the largest ridge.
    """
    return _best_damping(lambda half, damping: asymmetric_target(weight, folds[half], damping), weight, folds, DAMPINGS)


def held_out_form(folds: Sequence[SecondMoments], damping: float = LEAST_DAMPING) -> Float64Array:
    """The quadratic form of output errors for feedback of rounding errors, as far as both halves of the samples agree.

    Correlations of inputs are drawn towards none (Schaefer & Strimmer 2005, "A Shrinkage Approach to Large-Scale
    Covariance Matrix Estimation and Implications for Functional Genomics", target D) as far as feedback learned from
    each half gains by it on the other. EfficientNet-Lite0's last layers see 12544 vectors of 256 samples, which are so
    much alike that a form which takes them for independent learned them by heart.

    Args:
        folds: Moments of the two halves. One alone says nothing of others, and no correlation is believed.
        damping: The ridge, as a share of the mean diagonal.

    Returns:
        float64 array, shape (groups, K, K), positive definite.
    """

    def form(moments: SecondMoments, shrinkage: float) -> Float64Array:
        return damped(shrunk(moments.quadratic, shrinkage), damping)

    def loss(shrinkage: float) -> float:
        return sum(_feedback_error(form(folds[half], shrinkage), folds[1 - half]) for half in (0, 1))

    # Where there are samples enough the least is best, and each try on wide layers takes its time.
    best = _while_it_gains(SHRINKAGES, loss, SHRINKAGES[-1]) if len(folds) > 1 else SHRINKAGES[-1]
    return form(mean_of(folds), best)


def held_out_target(weight: Float64Array, folds: Sequence[SecondMoments]) -> Float64Array:
    """The target in two steps, each as far as the other half gains by it: a factor for each input, then each weight.

    Where inputs are noisy and samples few, as at the wide layers at a network's end, the first step takes back most of
    what can be, and the second would learn the samples by heart.

    Args:
        weight: float64 array, shape (groups, rows, K).
        folds: Moments of the two halves, or one alone.

    Returns:
        float64 array of the weight's shape.
    """
    together = mean_of(folds)
    start, starts = weight, [weight] * len(folds)
    # With one row a group, a factor for each input is a number for each weight.
    if weight.shape[1] > 1:
        damping = _best_damping(
            lambda half, damping: scaled_inputs(weight, folds[half], damping), weight, folds, FINE_DAMPINGS
        )
        start, *starts = (scaled_inputs(weight, seen, damping) for seen in (together, *folds))
    damping = _best_damping(
        lambda half, damping: asymmetric_target(weight, folds[half], damping, start=starts[half]),
        weight,
        folds,
        FINE_DAMPINGS,
    )
    return asymmetric_target(weight, together, damping, start=start)


def _best_damping(fit: Fit, weight: Float64Array, folds: Sequence[SecondMoments], dampings: Sequence[float]) -> float:
    """The ridge with which what is fitted to each half has the least error on the other."""

    def loss(damping: float) -> float:
        return sum(_output_error(fit(half, damping), weight, folds[1 - half]) for half in (0, 1))

    # From the cautious end.
    return _while_it_gains(dampings[::-1], loss, dampings[-1]) if len(folds) > 1 else dampings[-1]


def _while_it_gains(choices: Sequence[float], loss: Callable[[float], float], otherwise: float) -> float:
    """The last of the choices, in their order, with less loss than the one before; otherwise where none has any."""
    best, least = otherwise, np.inf
    for choice in choices:
        found = loss(choice)
        if not found < least:
            break
        best, least = choice, found
    return best


def _feedback_error(form: Float64Array, seen: SecondMoments) -> float:
    """What rounding with feedback by a form does to the outputs for the inputs seen, groups by their relative errors.

    Feedback leaves the weights an error d U (see `gptq`), where d are rounding errors divided by their column's
    diagonal of U. Whatever the weights and the levels, those are as good as independent and alike, and the output error
    goes with the sum over columns of (U H U') / diag(U)**2: what a linear prediction of each input from those behind it
    leaves.
    """
    feedback = inverse_factor(form)
    left = np.sum((feedback @ seen.quadratic) * feedback, axis=2)
    errors = np.sum(left / np.square(np.diagonal(feedback, axis1=1, axis2=2)), axis=1)
    power = np.trace(seen.quadratic, axis1=1, axis2=2)
    return float(np.sum(errors[power > 0.0] / power[power > 0.0]))


def _output_error(target: Float64Array, weight: Float64Array, moments: SecondMoments) -> float:
    """Sum over rows of E |w z - t x|**2, less what does not depend on t."""
    fitted, wanted = target @ moments.quadratic, weight @ moments.cross
    return float(np.sum(target * (fitted - 2.0 * wanted)))
