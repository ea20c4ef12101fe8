"""How far a weight may be fitted to samples: as far as the other half of them gains by it.

Two-fold cross-validation of the ridge (Stone 1974, "Cross-validatory choice and assessment of statistical
predictions"; Hastie et al., "The Elements of Statistical Learning", section 7.10). What quantization does to a layer's
input is small, correlated along the network, and different from sample to sample, so that a fixed ridge takes back too
little of it in front and learns the samples by heart further back.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.second_moments import SecondMoments, asymmetric_target, mean_of, scaled_inputs

__all__ = ["held_out_damping", "held_out_target"]

Float64Array = npt.NDArray[np.float64]
Fit = Callable[[int, float], Float64Array]
"""From a half of the samples and a ridge to the rows fitted to it."""

# Shares of the mean diagonal, ascending. The largest all but keeps the float weight.
DAMPINGS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

# Neighbouring pixels are so much alike that the directions in which they differ, where noise of quantization is to be
# told from edges, have a thousandth of the mean diagonal and less.
FINE_DAMPINGS = (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, *DAMPINGS)


def held_out_damping(weight: Float64Array, folds: Sequence[SecondMoments]) -> float:
    """The ridge with which the target fitted to each half of the samples serves the other best.

    Args:
        weight: float64 array, shape (groups, rows, K).
        folds: Moments of the two halves. One alone says nothing of others, and gets the largest ridge.
    """
    return _best_damping(lambda half, damping: asymmetric_target(weight, folds[half], damping), weight, folds, DAMPINGS)


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
    best, least = dampings[-1], np.inf
    if len(folds) < 2:
        return best
    # From the cautious end, until it no longer gains.
    for damping in reversed(dampings):
        loss = sum(_output_error(fit(half, damping), weight, folds[1 - half]) for half in (0, 1))
        if not loss < least:
            break
        best, least = damping, loss
    return best


def _output_error(target: Float64Array, weight: Float64Array, moments: SecondMoments) -> float:
    """Sum over rows of E |w z - t x|**2, less what does not depend on t."""
    fitted, wanted = target @ moments.quadratic, weight @ moments.cross
    return float(np.sum(target * (fitted - 2.0 * wanted)))
