"""Entropy-constrained levels: a little more error where that saves many bits after lossless coding.

P. A. Chou, T. Lookabaugh and R. M. Gray, "Entropy-constrained vector quantization", IEEE Trans. ASSP 37(1), 1989,
here in one dimension: minimise error + price * bits, where a weight on level k takes -log2(p_k) bits, p_k being the
level's share. Choi, El-Khamy and Lee use it for networks (arXiv 1612.01543, section 4). Each step of a round is the
best for what the others fixed, so the sum never rises; it ends in a local minimum, near the levels it starts from.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.decision_bounds import decision_bounds
from amct_lite.types import IntArray

__all__ = ["PricedLevels", "price_levels"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Rounds end when one gains less than this share of the sum, usually after 5 to 20; what is left by then is worth
# hundredths of a percent.
LEAST_GAIN = 1e-4
MOST_ROUNDS = 50


@dataclass(frozen=True)
class PricedLevels:
    """Levels, what each costs, and the scales they belong to.

    Attributes:
        levels: int64 array, shape (K,), ascending and distinct.
        costs: float32 array, shape (K,): price * code length of the level, in units of a squared weight.
        scales: float32 array, shape (C,).
        lagrangians: error + price * bits at the start and after each round.
    """

    levels: npt.NDArray[np.int64]
    costs: Float32Array
    scales: Float32Array
    lagrangians: tuple[float, ...]


@dataclass(frozen=True)
class _Cells:
    """How many weights of each channel lie on each level, and their sum; float64 arrays, shape (C, K)."""

    counts: Float64Array
    sums: Float64Array


def price_levels(
    rows: Float32Array,
    scales: Float32Array,
    levels: IntArray,
    *,
    price: float,
    refit_scales: bool = False,
    q_min: int = -128,
    q_max: int = 127,
) -> PricedLevels:
    """Alternates assignment, centroids and code lengths until error + price * bits falls no further.

    Args:
        rows: float32 array, shape (C, n), finite: the weights, one row for each channel.
        scales: float32 array, shape (C,), positive.
        levels: Integer array, shape (K,), ascending and distinct: where to start, best an exact clustering.
        price: How much squared error (of the weights themselves) one bit may cost, positive.
        refit_scales: Whether each round also fits the scales to the levels, by least squares.
        q_min: The lowest level allowed.
        q_max: The highest level allowed.

    Returns:
        The levels that some weight uses, at most K, and their costs. decision_bounds makes the assignment of them.

    Example:
        >>> rows = np.array([[0.0, 0.1, 0.1, 0.2, 1.9, 9.0]], dtype=np.float32)
        >>> found = price_levels(rows, np.ones(1, dtype=np.float32), np.array([0, 2, 9]), price=2.0)
        >>> found.levels, found.lagrangians[0] > found.lagrangians[-1]
        (array([0, 9]), True)
    """
    # Sorted once, a level's weights lie between two positions, and its sums are differences of running sums.
    ordered = np.sort(rows, axis=1).astype(np.float64)
    running = np.concatenate([np.zeros((rows.shape[0], 1)), np.cumsum(ordered, axis=1)], axis=1)
    squares = float(np.sum(np.square(ordered)))
    nearest = decision_bounds(scales, levels, np.zeros(levels.size, dtype=np.float32))
    kept, cells = _without_unused(levels.astype(np.int64), _cells_between(ordered, running, nearest))
    lengths = _code_lengths(cells)
    lagrangians = [_lagrangian(cells, kept, scales, lengths, price, squares)]
    for _ in range(MOST_ROUNDS):
        costs = (price * lengths).astype(np.float32)
        cells = _cells_between(ordered, running, decision_bounds(scales, kept, costs))
        kept, cells = _centroids(*_without_unused(kept, cells), scales, q_min, q_max)
        if refit_scales:
            scales = _fitted_scales(cells, kept, scales)
        lengths = _code_lengths(cells)
        lagrangians.append(_lagrangian(cells, kept, scales, lengths, price, squares))
        if lagrangians[-2] - lagrangians[-1] <= LEAST_GAIN * lagrangians[-2]:
            break
    return PricedLevels(kept, (price * lengths).astype(np.float32), scales, tuple(lagrangians))


def _cells_between(ordered: Float64Array, running: Float64Array, bounds: Float64Array) -> _Cells:
    num_channels, num_weights = ordered.shape
    ends = np.zeros((num_channels, bounds.shape[1] + 2), dtype=np.intp)
    ends[:, -1] = num_weights
    for row, limits, positions in zip(ordered, bounds, ends, strict=True):
        positions[1:-1] = np.searchsorted(row, limits, side="left")
    counts = np.diff(ends, axis=1).astype(np.float64)
    return _Cells(counts, np.diff(np.take_along_axis(running, ends, axis=1), axis=1))


def _without_unused(levels: npt.NDArray[np.int64], cells: _Cells) -> tuple[npt.NDArray[np.int64], _Cells]:
    used = cells.counts.any(axis=0)
    return levels[used], _Cells(cells.counts[:, used], cells.sums[:, used])


def _centroids(
    levels: npt.NDArray[np.int64], cells: _Cells, scales: Float32Array, q_min: int, q_max: int
) -> tuple[npt.NDArray[np.int64], _Cells]:
    """Moves each level to the integer of least error for its weights; two that meet there become one."""
    # Sums instead of matrix products here and below: the order of a BLAS's additions depends on its threads.
    # Relative to the largest scale, so that no square underflows.
    steps = scales.astype(np.float64)[:, None] / float(scales.max())
    masses = np.sum(np.square(steps) * cells.counts, axis=0)
    moments = np.sum(steps * cells.sums, axis=0) / float(scales.max())
    # A level whose channels all have vanishing scales stays: its weights are rounding errors of the others.
    centres = np.divide(moments, masses, out=levels.astype(np.float64), where=masses > 0)
    moved = np.clip(np.rint(centres), q_min, q_max).astype(np.int64)
    if (np.diff(moved) > 0).all():
        return moved, cells
    # Bounds differ from channel to channel, so that two levels may even change places.
    order = np.argsort(moved, kind="stable")
    distinct, firsts = np.unique(moved[order], return_index=True)
    counts, sums = (np.add.reduceat(each[:, order], firsts, axis=1) for each in (cells.counts, cells.sums))
    return distinct, _Cells(counts, sums)


def _fitted_scales(cells: _Cells, levels: npt.NDArray[np.int64], scales: Float32Array) -> Float32Array:
    products, squares = np.sum(cells.sums * levels, axis=1), np.sum(cells.counts * np.square(levels), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = (products / squares).astype(np.float32)
    usable = np.isfinite(fitted) & (fitted >= np.finfo(np.float32).tiny)
    return np.where(usable, fitted, scales)


def _code_lengths(cells: _Cells) -> Float64Array:
    counts = cells.counts.sum(axis=0)
    # The maximum turns the -0.0 of a single level into 0.0.
    lengths: Float64Array = np.maximum(-np.log2(counts / counts.sum()), 0.0)
    return lengths


def _lagrangian(
    cells: _Cells,
    levels: npt.NDArray[np.int64],
    scales: Float32Array,
    lengths: Float64Array,
    price: float,
    squares: float,
) -> float:
    places = scales.astype(np.float64)[:, None] * levels
    error = squares + float(np.sum(places * (places * cells.counts - 2.0 * cells.sums)))
    return error + price * float(np.sum(cells.counts.sum(axis=0) * lengths))
