"""Which level each weight goes to, exactly, by tables of half steps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.decision_bounds import decision_bounds, levels_between
from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["CELLS_PER_STEP", "cell_table", "cells_of", "from_rows", "quantize_to_levels", "rows_of"]

Float32Array = npt.NDArray[np.float32]

# Halfway between two integer levels lies an integer or a half, so cells of half a step never straddle a
# decision bound: clustering the cells is clustering the weights themselves.
CELLS_PER_STEP = 2


def quantize_to_levels(
    weight: FloatArray,
    scales: Float32Array,
    levels: Sequence[int],
    *,
    axis: int | None,
    costs: Sequence[float] = (),
    num_bits: int = 8,
) -> npt.NDArray[np.int8]:
    """Puts every weight on the nearest of the levels kept, or the best where levels have costs, as cluster_weight does.

    Rounding to the full grid first and then to the nearest level kept would cost accuracy: a weight of 4.3
    steps between the levels 3 and 5 would go to 4 and from there to either.

    Args:
        weight: Float array, any shape; taken as float32.
        scales: float32 array, shape (C,), or (1,) for axis None.
        levels: The levels kept, ascending.
        axis: Axis of the channels that the scales belong to, or None.
        costs: What each level costs, in units of a squared weight, taken as float32: every weight goes where
            squared error + cost is least. None given: nowhere but to the nearest.
        num_bits: Width of a level, 2 to 8.

    Returns:
        int8 array of the weight's shape.

    Raises:
        ParameterError: A weight is not finite, the levels do not ascend within the grid, or there is not one finite
            cost for each.

    Example:
        >>> quantize_to_levels(np.array([0.9, 4.3]), np.ones(1, dtype=np.float32), [0, 3, 5], axis=None)
        array([0, 5], dtype=int8)
    """
    q_min, q_max = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1
    kept = np.asarray(levels, dtype=np.int64)
    if kept.size == 0 or (np.diff(kept) <= 0).any() or kept[0] < q_min or kept[-1] > q_max:
        raise ParameterError(f"Levels must be distinct and ascending, within [{q_min}, {q_max}].")
    if not np.isfinite(weight).all():
        raise ParameterError("Weights must be finite.")
    rows = rows_of(weight.astype(np.float32, copy=False), axis)
    if len(costs):
        prices = np.asarray(costs, dtype=np.float32)
        if prices.shape != kept.shape or not np.isfinite(prices).all():
            raise ParameterError("Costs must be finite, one for each level.")
        return from_rows(levels_between(rows, decision_bounds(scales, kept, prices), kept), weight.shape, axis)
    table = cell_table(kept, q_min, q_max)
    return from_rows(np.take(table, cells_of(rows, scales, q_min, q_max)), weight.shape, axis)


def cells_of(rows: Float32Array, scales: Float32Array, q_min: int, q_max: int) -> npt.NDArray[np.intp]:
    """Number of the cell of half a step that each weight lies in, flat."""
    steps = rows / scales[:, None]
    steps *= CELLS_PER_STEP
    np.floor(steps, out=steps)
    # Beyond the outermost levels every weight is nearest to them, so the end cells take them all.
    np.clip(steps, CELLS_PER_STEP * q_min, CELLS_PER_STEP * q_max, out=steps)
    steps -= CELLS_PER_STEP * q_min
    return steps.astype(np.intp).reshape(-1)


def cell_table(levels: npt.NDArray[np.int64], q_min: int, q_max: int) -> npt.NDArray[np.int8]:
    """The nearest level of every cell."""
    num_cells = CELLS_PER_STEP * (q_max - q_min) + 1
    centres = q_min + (np.arange(num_cells) + 0.5) / CELLS_PER_STEP
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2.0, centres)
    return levels.astype(np.int8)[nearest]


def rows_of(weight: Float32Array, axis: int | None) -> Float32Array:
    """A matrix with one row for each channel, one row in all for axis None."""
    if axis is None:
        return weight.reshape(1, -1)
    return np.ascontiguousarray(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1)


def from_rows(rows: npt.NDArray[np.int8], shape: tuple[int, ...], axis: int | None) -> npt.NDArray[np.int8]:
    """The tensor again; the inverse of rows_of."""
    if axis is None:
        return rows.reshape(shape)
    axis %= len(shape)
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))
