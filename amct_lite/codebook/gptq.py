"""Error feedback: the weights still open make up for what rounding the earlier ones did.

Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv
2210.17323, algorithm 1, with the columns in order of falling diagonal and rounding to a table of levels instead of
a uniform grid.
"""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.tables import LevelTables

__all__ = ["gptq_codes", "inverse_factor"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]

# Columns whose feedback to the rest is given at once: large enough for matrix products, small enough for the cache.
BLOCK = 64


def gptq_codes(weight: Float64Array, quadratic: Float64Array, scales: Float64Array, tables: LevelTables) -> IntpArray:
    """Chooses a code for every weight, column by column, and feeds each column's error to those not yet chosen.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K), positive definite.
        scales: float64 array, shape (groups, rows).
        tables: The levels of all groups * rows rows.

    Returns:
        Codes, shape (groups, rows, K); of vectors (1, rows of codes, K).
    """
    size = weight.shape[2]
    single = tables.vector_size == 1
    order = _order(np.diagonal(quadratic, axis1=1, axis2=2), alike=not single)
    feedback = inverse_factor(np.take_along_axis(_take_rows(quadratic, order), order[:, None, :], axis=2))
    left = np.take_along_axis(weight, order[:, None, :], axis=2)
    columns = []
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.empty((*scales.shape, stop - start))
        for column in range(start, stop):
            # |(w - c) / U|**2 is what the columns behind cannot make up for.
            importance = None if single else np.square(scales / feedback[:, column, column, None]).reshape(-1)
            chosen = tables.nearest((left[:, :, column] / scales).reshape(-1), importance)
            columns.append(chosen)
            decoded = tables.decode(chosen).reshape(scales.shape) * scales
            error = (left[:, :, column] - decoded) / feedback[:, None, column, column]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : stop] -= error[:, :, None] * feedback[:, None, column, column + 1 : stop]
        left[:, :, stop:] -= errors @ feedback[:, start:stop, stop:]
    codes = np.stack(columns, axis=-1).reshape(len(weight) if single else 1, -1, size)
    chosen_codes = np.empty_like(codes)
    np.put_along_axis(chosen_codes, np.broadcast_to(order[: len(codes), None, :], codes.shape), codes, axis=2)
    return chosen_codes


def _order(power: Float64Array, *, alike: bool) -> IntpArray:
    """Columns of each group by falling power; where vectors may span groups, in the same order in all of them."""
    if alike and len(power) > 1:
        power = np.broadcast_to((power / power.max(axis=1, keepdims=True)).sum(axis=0), power.shape)
    return np.argsort(-power, axis=1, kind="stable")


def inverse_factor(quadratic: Float64Array) -> Float64Array:
    """Upper triangular U with U' U = H^-1; the diagonal is raised tenfold where rounding leaves no positive matrix."""
    size = quadratic.shape[-1]
    ridge = np.zeros(len(quadratic))
    mean = np.trace(quadratic, axis1=1, axis2=2) / size
    for exponent in range(-10, 4):
        try:
            inverse = np.linalg.inv(quadratic + ridge[:, None, None] * np.eye(size))
            inverse = (inverse + inverse.transpose(0, 2, 1)) / 2.0
            return np.asarray(np.linalg.cholesky(inverse).transpose(0, 2, 1))
        except np.linalg.LinAlgError:
            ridge = mean * 10.0**exponent
    return np.broadcast_to(np.eye(size), quadratic.shape)  # no correlations that rounding can make sense of


def _take_rows(matrices: Float64Array, order: IntpArray) -> Float64Array:
    return np.asarray(np.take_along_axis(matrices, order[:, :, None], axis=1))
