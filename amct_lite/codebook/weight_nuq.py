"""NUQ of weights on the int8 grid: at most num_steps of the levels are kept, the best ones."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.assignment import CELLS_PER_STEP, cell_table, cells_of, from_rows, rows_of
from amct_lite.codebook.decision_bounds import decision_bounds, levels_between
from amct_lite.codebook.entropy_constrained import PricedLevels, price_levels
from amct_lite.codebook.exact_grid import best_levels_of_cells
from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["ClusteredWeight", "cluster_weight"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClusteredWeight:
    """A weight on a few levels of a uniform grid.

    Attributes:
        quantized: int8 array of the weight's shape; what stands for the weight is quantized * scale.
        scales: float32 array, shape (C,), or (1,) for one scale for the tensor.
        levels: The levels in use, ascending.
        error: Sum of squared differences to the weight, times the importance where one was given.
        costs: What each level costs beside its error, float32 values: quantize_to_levels needs them to find the same
            assignment. () where every weight is on its nearest level.
    """

    quantized: npt.NDArray[np.int8]
    scales: Float32Array
    levels: tuple[int, ...]
    error: float
    costs: tuple[float, ...] = ()


def cluster_weight(
    weight: FloatArray,
    scales: Float32Array,
    *,
    axis: int | None,
    num_steps: int,
    num_of_iteration: int = 1,
    num_bits: int = 8,
    importance: FloatArray | None = None,
    entropy_weight: float = 0.0,
) -> ClusteredWeight:
    """Keeps the num_steps levels that represent a weight best.

    Iteration 0 finds the exact optimum for the given scales. Every further one fits each channel's scale to
    the levels chosen, s = <w, l> / <l, l> (least squares), and finds the optimum for the new scales. The best
    of all is returned, so that more iterations are never worse.

    With an entropy_weight, this result is only the start: from there, error + price * entropy is brought down to a
    local minimum, whose levels are no more and whose assignment favours the frequent ones (`price_levels`). The
    scales are fitted along where num_of_iteration is not 0.

    Args:
        weight: Float array, any shape; taken as float32.
        scales: Uniform scales (ARQ), shape (C,), or (1,) for axis None.
        axis: Axis of the channels that the scales belong to, or None.
        num_steps: How many levels to keep, 2 to 2**num_bits.
        num_of_iteration: How often to fit the scales, 0 to 5.
        num_bits: Width of a level, 2 to 8.
        importance: How much a squared error counts, for example the mean square of the input that a weight
            meets; broadcastable to weight, non-negative. None, or zeros only, counts all alike.
        entropy_weight: How much error one bit saved per weight may cost, in units of the error of the clustering
            without it; 0 leaves that clustering as it is. Not together with an importance: the assignment could
            not be found again from levels and costs alone.

    Returns:
        The clustered weight.

    Raises:
        ParameterError: A parameter is out of its range, or a value is not finite.

    Example:
        >>> weight = np.array([0.0, 0.1, 1.0, 1.27], dtype=np.float32)
        >>> result = cluster_weight(weight, np.array([0.01], dtype=np.float32), axis=None, num_steps=2)
        >>> len(result.levels), result.quantized[0] == result.quantized[1]
        (2, np.True_)
    """
    _check_parameters(num_steps, num_of_iteration, num_bits)
    if not 0.0 <= entropy_weight < np.inf:
        raise ParameterError(
            f"The 'entropy_weight' parameter of NUQ must be finite and not negative. Got {entropy_weight} instead."
        )
    if entropy_weight > 0.0 and importance is not None:
        raise ParameterError("NUQ takes an 'importance' or an 'entropy_weight', not both.")
    rows = rows_of(weight.astype(np.float32, copy=False), axis)
    scales = scales.astype(np.float32)
    if scales.shape != rows.shape[:1] or not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ParameterError(f"Scales must be positive and finite, one for each of {rows.shape[0]} channels.")
    if not np.isfinite(rows).all():
        raise ParameterError("Weights must be finite.")
    counted = _importance_rows(importance, weight.shape, axis)

    levels = _quantize_to_best(rows, scales, counted, num_steps, num_bits)
    error = _squared_error(rows, levels, scales, counted)
    for _ in range(num_of_iteration):
        new_scales = _fit_scales(rows, levels, scales, counted)
        new_levels = _quantize_to_best(rows, new_scales, counted, num_steps, num_bits)
        new_error = _squared_error(rows, new_levels, new_scales, counted)
        if new_error >= error:
            # Both halves of an iteration are optimal, so only float rounding can raise the error: it is done.
            break
        levels, scales, error = new_levels, new_scales, new_error
    costs: tuple[float, ...] = ()
    price = entropy_weight * error / max(rows.size, 1)
    if price >= np.finfo(np.float32).tiny:
        levels, priced = _entropy_constrained(
            rows, scales, levels, price=price, refit_scales=num_of_iteration > 0, num_bits=num_bits
        )
        scales, costs = priced.scales, tuple(priced.costs.tolist())
        error = _squared_error(rows, levels, scales, None)
    return ClusteredWeight(
        quantized=from_rows(levels, weight.shape, axis),
        scales=scales,
        levels=tuple(int(level) for level in _distinct(levels)),
        error=error,
        costs=costs,
    )


def _entropy_constrained(
    rows: Float32Array,
    scales: Float32Array,
    start: npt.NDArray[np.int8],
    *,
    price: float,
    refit_scales: bool,
    num_bits: int,
) -> tuple[npt.NDArray[np.int8], PricedLevels]:
    """Goes on from a clustering to the least error + price * bits, and quantizes as the record's reader will."""
    q_min, q_max = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1
    priced = price_levels(
        rows, scales, _distinct(start), price=price, refit_scales=refit_scales, q_min=q_min, q_max=q_max
    )
    while True:
        bounds = decision_bounds(priced.scales, priced.levels, priced.costs)
        quantized = levels_between(rows, bounds, priced.levels)
        used = np.isin(priced.levels, _distinct(quantized))
        if used.all():
            return quantized, priced
        # The last code lengths can leave a level without weights. Dropping it moves bounds by a rounding at most, but
        # the assignment returned has to be exactly the one that the returned levels give.
        priced = replace(priced, levels=priced.levels[used], costs=priced.costs[used])


def _quantize_to_best(
    rows: Float32Array, scales: Float32Array, counted: Float32Array | None, num_steps: int, num_bits: int
) -> npt.NDArray[np.int8]:
    """Finds the best levels for fixed scales and puts every weight on its nearest one."""
    q_min, q_max = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1
    cells = cells_of(rows, scales, q_min, q_max)
    # An error of one step of channel c costs scale_c squared: weight / scale has the moment scale_c * weight.
    # All costs are taken relative to the largest scale, by a power of two, so that no square underflows.
    num_cells = CELLS_PER_STEP * (q_max - q_min) + 1
    unit = np.ldexp(np.float32(1.0), -np.frexp(scales.max())[1])
    relative = scales * unit
    moments = rows * (relative * unit)[:, None]
    masses: Float32Array = np.broadcast_to(np.square(relative)[:, None], rows.shape)
    if counted is not None:
        moments *= counted
        masses = masses * counted
    mass: Float64Array = np.bincount(cells, masses.reshape(-1), num_cells).astype(np.float64, copy=False)
    moment: Float64Array = np.bincount(cells, moments.reshape(-1), num_cells).astype(np.float64, copy=False)
    levels = best_levels_of_cells(mass, moment, num_steps, lowest=q_min, highest=q_max)

    return np.take(cell_table(levels, q_min, q_max), cells).reshape(rows.shape)


def _fit_scales(
    rows: Float32Array, levels: npt.NDArray[np.int8], scales: Float32Array, counted: Float32Array | None
) -> Float32Array:
    """Fits each channel's scale by least squares; one that has no positive solution stays."""
    chosen = levels.astype(np.float32)
    weighted = chosen if counted is None else chosen * counted
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fitted = _row_sums(rows * weighted) / _row_sums(chosen * weighted)
        fitted = fitted.astype(np.float32)
    # A scale that would be subnormal is as good as none.
    usable = np.isfinite(fitted) & (fitted >= np.finfo(np.float32).tiny)
    return np.where(usable, fitted, scales)


def _squared_error(
    rows: Float32Array, levels: npt.NDArray[np.int8], scales: Float32Array, counted: Float32Array | None
) -> float:
    difference = levels * scales[:, None]
    difference -= rows
    np.square(difference, out=difference)
    if counted is not None:
        difference *= counted
    return float(np.sum(difference, dtype=np.float64))


def _row_sums(values: Float32Array) -> npt.NDArray[np.float64]:
    return np.asarray(np.sum(values, axis=1, dtype=np.float64))


def _distinct(levels: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """The values in use, ascending; np.unique would sort every weight."""
    return np.flatnonzero(np.bincount(levels.reshape(-1).view(np.uint8) ^ 0x80, minlength=256)) - 128


def _importance_rows(importance: FloatArray | None, shape: tuple[int, ...], axis: int | None) -> Float32Array | None:
    if importance is None:
        return None
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ParameterError("The 'importance' parameter must be finite and not negative.")
    if not importance.any():
        return None
    return rows_of(np.broadcast_to(importance.astype(np.float32), shape), axis)


def _check_parameters(num_steps: int, num_of_iteration: int, num_bits: int) -> None:
    for name, value, low, high in (
        ("num_bits", num_bits, 2, 8),
        ("num_steps", num_steps, 2, 2**num_bits),
        ("num_of_iteration", num_of_iteration, 0, 5),
    ):
        if not low <= value <= high:
            raise ParameterError(
                f"The {name!r} parameter of NUQ must be an int in the range [{low}, {high}]. Got {value} instead."
            )
