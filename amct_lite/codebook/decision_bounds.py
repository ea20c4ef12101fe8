"""Where one level's weights end and the next one's begin, when levels also have a price."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.types import IntArray

__all__ = ["decision_bounds", "levels_between"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


def decision_bounds(scales: Float32Array, levels: IntArray, costs: Float32Array) -> Float64Array:
    """Finds the bounds between levels that minimise (weight - scale * level)**2 + cost of the level.

    Between two levels a < b the bound is their midpoint, moved towards the dearer one by
    (cost_b - cost_a) / (2 * scale * (b - a)); a level that is too dear for a channel's scale has nothing between
    its bounds there. The weight's own square is the same for every level, so what is sought is the lower envelope
    of straight lines, one for each level, as a convex hull finds it.

    Args:
        scales: float32 array, shape (C,), positive.
        levels: Integer array, shape (K,), ascending and distinct.
        costs: float32 array, shape (K,), finite, in units of a squared weight.

    Returns:
        float64 array, shape (C, K - 1), never descending along a row: level k of channel c takes the weights in
        [bounds[c, k - 1], bounds[c, k]).

    Example:
        >>> scales, levels = np.ones(1, dtype=np.float32), np.array([0, 2, 4])
        >>> decision_bounds(scales, levels, np.array([0.0, 2.0, 2.0], dtype=np.float32))
        array([[1.5, 3. ]])
        >>> decision_bounds(scales, levels, np.array([0.0, 9.0, 2.0], dtype=np.float32))
        array([[2.25, 2.25]])
    """
    places = scales.astype(np.float64)[:, None] * levels
    heights = np.square(places) + costs
    num_channels, num_levels = places.shape
    # On the envelope of the levels up to k: the level before k, and the weight at which k takes over from it.
    before = np.tile(np.arange(-1, num_levels - 1), (num_channels, 1))
    takes_over = np.full((num_channels, num_levels), -np.inf)
    for k in range(1, num_levels):
        unsettled = np.arange(num_channels)
        while unsettled.size:
            last = before[unsettled, k]
            rise = heights[unsettled, k] - heights[unsettled, last]
            takes_over[unsettled, k] = rise / (2.0 * (places[unsettled, k] - places[unsettled, last]))
            hidden = takes_over[unsettled, k] <= takes_over[unsettled, last]
            unsettled = unsettled[hidden]
            before[unsettled, k] = before[unsettled, last[hidden]]
    bounds = np.empty((num_channels, num_levels - 1))
    channels = np.arange(num_channels)
    shown = np.full(num_channels, num_levels - 1)
    for k in range(num_levels - 1, 0, -1):
        bounds[:, k - 1] = takes_over[channels, shown]
        shown = np.where(before[channels, shown] == k - 1, k - 1, shown)
    return bounds


def levels_between(rows: Float32Array, bounds: Float64Array, levels: Sequence[int] | IntArray) -> npt.NDArray[np.int8]:
    """Puts every weight on the level between whose bounds it lies.

    Args:
        rows: float32 array, shape (C, n), one row for each channel.
        bounds: Of decision_bounds, shape (C, K - 1).
        levels: The K levels.

    Returns:
        int8 array, shape (C, n).
    """
    table = np.asarray(levels).astype(np.int8)
    found = np.empty(rows.shape, dtype=np.int8)
    for row, limits, target in zip(rows, bounds, found, strict=True):
        np.take(table, np.searchsorted(limits, row, side="right"), out=target)
    return found
