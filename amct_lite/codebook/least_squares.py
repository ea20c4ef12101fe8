"""Closed forms: the levels that are best for given codes, and each row's best scale.

The table half of LNQ (Kim et al. 2025, arXiv 2505.07004, equation 8: ordinary least squares in the levels), for a
table that several rows share under scales of their own.
"""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.tables import RowTables

__all__ = ["fit_scales", "fit_tables", "output_error", "output_power"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]

# float64 values worked on at a time (64 MiB).
CHUNK_SIZE = 2**23


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
    tables: RowTables,
    codes: IntpArray,
    *,
    keep_zero: bool,
) -> tuple[RowTables, IntpArray]:
    """The levels that minimise the output error for given codes, each table on its own.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K), positive definite.
        scales: float64 array, shape (groups, rows).
        tables: The present levels; one that no weight uses stays.
        codes: Shape (groups, rows, K).
        keep_zero: Whether a level of exactly 0 stays there.

    Returns:
        The new tables, ascending, and the codes for them.
    """
    levels = tables.levels.copy()
    table_of_row = tables.table_of_row.reshape(scales.shape)
    targets = (weight @ quadratic) * scales[:, :, None]
    for table in range(len(levels)):
        own = table_of_row == table
        normal, right = _normal_equations(quadratic, scales, codes, targets, own, levels.shape[1])
        free = (np.diagonal(normal) > 0.0) & ~(keep_zero & (levels[table] == 0.0))
        if not free.any():
            continue
        system = normal[np.ix_(free, free)]
        system[np.diag_indices_from(system)] *= 1.0 + 1e-9
        fixed = normal[np.ix_(free, ~free)] @ levels[table, ~free]
        levels[table, free] = np.linalg.lstsq(system, right[free] - fixed, rcond=None)[0]
    order: IntpArray = np.argsort(levels, axis=1, kind="stable")
    place: IntpArray = np.argsort(order, axis=1)
    moved: IntpArray = place[table_of_row[:, :, None], codes]
    return RowTables(np.take_along_axis(levels, order, axis=1), tables.table_of_row), moved


def _normal_equations(
    quadratic: Float64Array,
    scales: Float64Array,
    codes: IntpArray,
    targets: Float64Array,
    own: npt.NDArray[np.bool_],
    num_levels: int,
) -> tuple[Float64Array, Float64Array]:
    """Sum over rows of s**2 P' H P and of s P' H w', where P[j, a] says whether weight j has code a."""
    normal = np.zeros((num_levels, num_levels))
    right: Float64Array = np.bincount(codes[own].reshape(-1), targets[own].reshape(-1), num_levels).astype(np.float64)
    size = codes.shape[2]
    rows_per_chunk = max(1, CHUNK_SIZE // (size * num_levels))
    for group in np.flatnonzero(own.any(axis=1)):
        rows = np.flatnonzero(own[group])
        for start in range(0, rows.size, rows_per_chunk):
            chunk = rows[start : start + rows_per_chunk]
            used = np.zeros((size, chunk.size, num_levels))
            columns, numbers = np.arange(size)[:, None], np.arange(chunk.size)[None, :]
            used[columns, numbers, codes[group, chunk].T] = scales[group, chunk]
            flat = used.reshape(size, -1)
            product = (quadratic[group] @ flat).reshape(size * chunk.size, num_levels)
            normal += used.reshape(size * chunk.size, num_levels).T @ product
    return normal, right
