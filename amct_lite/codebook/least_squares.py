"""Least squares: the levels that are best for given codes, and each row's best scale.

The table half of LNQ (Kim et al. 2025, arXiv 2505.07004, equation 8: ordinary least squares in the levels), for a
table that several rows share under scales of their own, of single weights or of vectors.
"""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.tables import LevelTables

__all__ = ["fit_scales", "fit_tables", "output_error", "output_power"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]

# Steps towards the best levels end when one gains less than this share of what all have gained.
LEAST_STEP = 1e-4
MAX_STEPS = 64


def output_error(weight: Float64Array, quadratic: Float64Array, quantized: Float64Array) -> float:
    """Sum over rows of d H d' with d = weight - quantized: the layer's squared output error, summed.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K).
        quantized: float64 array, shape (groups, rows, K).
    """
    return output_power(weight - quantized, quadratic)


def output_power(weight: Float64Array, quadratic: Float64Array) -> float:
    """Sum over rows of w H w': the layer's squared output, summed.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K).
    """
    return float(np.sum(weight * (weight @ quadratic)))


def fit_scales(
    weight: Float64Array, quadratic: Float64Array, scales: Float64Array, levels_of_codes: Float64Array
) -> Float64Array:
    """Each row's scale by least squares, s = q H w' / q H q'; one without a positive solution stays.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K).
        scales: float64 array, shape (groups, rows).
        levels_of_codes: float64 array, shape (groups, rows, K): the decoded levels without their scale, q.
    """
    products = levels_of_codes @ quadratic
    wanted, own = np.sum(products * weight, axis=2), np.sum(products * levels_of_codes, axis=2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fitted = wanted / own
    usable = np.isfinite(fitted) & (fitted > np.finfo(np.float32).tiny)
    return np.where(usable, fitted, scales)


def fit_tables(
    weight: Float64Array,
    quadratic: Float64Array,
    scales: Float64Array,
    tables: LevelTables,
    codes: IntpArray,
    *,
    keep_zero: bool,
) -> tuple[LevelTables, IntpArray]:
    """The levels that minimise the output error for given codes.

    By conjugate gradients (Hestenes and Stiefel 1952, "Methods of Conjugate Gradients for Solving Linear Systems",
    Journal of Research of the National Bureau of Standards 49) from the present levels, scaled by the diagonal: each
    step costs two passes over the weights, and none can raise the error.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K), positive definite.
        scales: float64 array, shape (groups, rows).
        tables: The present levels; one that no weight uses stays.
        codes: As from `gptq_codes`.
        keep_zero: Whether a level of exactly 0 stays there.

    Returns:
        The new tables, and the codes for them.
    """
    flat_codes, levels = codes.reshape(-1, codes.shape[2]), tables.levels

    def sums(products: Float64Array) -> Float64Array:
        return tables.sums(flat_codes, (products * scales[:, :, None]).reshape(-1, weight.shape[2]))

    def decoded(numbers: Float64Array) -> Float64Array:
        return tables.decode(flat_codes, numbers).reshape(weight.shape) * scales[:, :, None]

    own = np.broadcast_to(np.diagonal(quadratic, axis1=1, axis2=2)[:, None, :], weight.shape)
    diagonal = sums(own * scales[:, :, None])
    free = (diagonal > 0.0) & ~(keep_zero & _zero_levels(levels))
    inverse = np.divide(1.0, diagonal, where=free, out=np.zeros_like(diagonal))
    residual = np.where(free, sums((weight - decoded(levels)) @ quadratic), 0.0)
    direction = scaled = inverse * residual
    power = float(np.sum(residual * scaled))
    gained = 0.0
    for _ in range(MAX_STEPS):
        moved = sums(decoded(direction) @ quadratic)
        curvature = float(np.sum(direction * moved))
        step = power / curvature if curvature > 0.0 else np.inf
        if not np.isfinite(step):
            break
        levels = levels + step * direction
        gained += step * power
        if step * power < LEAST_STEP * gained:
            break
        residual = residual - step * np.where(free, moved, 0.0)
        scaled = inverse * residual
        last, power = power, float(np.sum(residual * scaled))
        direction = scaled + power / last * direction
    fitted, moved_codes = tables.with_levels(levels, flat_codes)
    return fitted, moved_codes.reshape(codes.shape)


def _zero_levels(levels: Float64Array) -> npt.NDArray[np.bool_]:
    zero = levels == 0.0
    return zero if levels.ndim == 2 else np.broadcast_to(zero.all(axis=2, keepdims=True), levels.shape)
