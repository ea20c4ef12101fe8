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
Fit = Callable[[SecondMoments, float], Float64Array]

# Shares of the mean diagonal, ascending. The largest all but keeps the float weight.
DAMPINGS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def held_out_damping(weight: Float64Array, folds: Sequence[SecondMoments]) -> float:
    """The ridge with which the target fitted to each half of the samples serves the other best.

    Args:
        weight: float64 array, shape (groups, rows, K).
        folds: Moments of the two halves. One alone says nothing of others, and gets the largest ridge.
    """
    return _best_damping(lambda mine, damping: asymmetric_target(weight, mine, damping), weight, folds)


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
    first = _best_damping(lambda mine, damping: scaled_inputs(weight, mine, damping), weight, folds)

    def fit(mine: SecondMoments, damping: float) -> Float64Array:
        return asymmetric_target(weight, mine, damping, start=scaled_inputs(weight, mine, first))

    return fit(mean_of(folds), _best_damping(fit, weight, folds))


def _best_damping(fit: Fit, weight: Float64Array, folds: Sequence[SecondMoments]) -> float:
    best, least = DAMPINGS[-1], np.inf
    if len(folds) < 2:
        return best
    # From the cautious end, until it no longer gains.
    for damping in reversed(DAMPINGS):
        loss = sum(_output_error(fit(mine, damping), weight, others) for mine, others in (folds, folds[::-1]))
        if not loss < least:
            break
        best, least = damping, loss
    return best


def _output_error(target: Float64Array, weight: Float64Array, moments: SecondMoments) -> float:
    """Sum over rows of E |w z - t x|**2, less what does not depend on t."""
    fitted, wanted = target @ moments.quadratic, weight @ moments.cross
    return float(np.sum(target * (fitted - 2.0 * wanted)))
