"""Activation levels chosen by the error that they make at a layer's output, not at its input.

What a tensor's table maps level q to is t[q], in steps of the grid from zero. A layer is linear, so its output is
linear in t: y = sum over q of t[q] * r[q], where r[q] is the layer's response to those inputs that are on level q.
The mean squared distance to the float network's output y* is then the quadratic form t' A t - 2 b' t + constant with
A = E[r r'] and b = E[r y*]: the "response" of the layer. It knows what a histogram does not: which channels matter,
which errors cancel in the layer's sums, and what an earlier layer's error left to take back.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from amct_lite.types import IntArray

__all__ = ["LevelsAndBounds", "OutputResponse", "levels_for_output"]

Float64Array = npt.NDArray[np.float64]

# Tried on either side of a level or a bound: far first steps, and near ones to end on.
MOVES = (8, 4, 2, 1)

# Each round moves every level and bound at most once; 8 to 64 levels have settled after a dozen.
MAX_ROUNDS = 40

# How much the error at the tensor itself counts beside the one at the output: moments of few samples are noisy.
TENSOR_SHARE = 0.02


@dataclass(frozen=True)
class OutputResponse:
    """The quadratic form of what layers put out, as a function of the table that their input goes through.

    Attributes:
        quadratic: float64 array, shape (256, 256), positive semi-definite: A.
        linear: float64 array, shape (256,): b.
        counts: float64 array, shape (256,): how often each level was seen.
    """

    quadratic: Float64Array
    linear: Float64Array
    counts: Float64Array

    def damped(self, steps: Float64Array) -> "OutputResponse":
        """The same with a share of the error at the tensor itself, which pulls each table entry to its own value.

        Args:
            steps: Shape (256,): the values of the levels, in steps from zero.
        """
        total = self.counts.sum()
        weights = TENSOR_SHARE * np.trace(self.quadratic) * self.counts / (total if total > 0.0 else 1.0)
        return OutputResponse(self.quadratic + np.diag(weights), self.linear + weights * steps, self.counts)

    def with_gain_kept(self, weight: float) -> "OutputResponse":
        """The same, for outputs of power 1, with a loss of gain counting more than as much noise.

        With y the float network's output, E|y*|**2 = 1, and g = E[y y*] = b' t its gain, the error splits into
        (1 - g)**2 and noise that is uncorrelated with y*. Here the former counts (1 + weight) times.

        Args:
            weight: At least 0.
        """
        return OutputResponse(
            self.quadratic + weight * np.outer(self.linear, self.linear), (1.0 + weight) * self.linear, self.counts
        )


@dataclass(frozen=True)
class LevelsAndBounds:
    """A table as its levels and where it goes from one to the next.

    Attributes:
        levels: int64 array, shape (k,), ascending: the levels kept.
        bounds: int64 array, shape (k - 1,), ascending: the first level of the grid that goes to level i + 1.
    """

    levels: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]

    @classmethod
    def nearest(cls, levels: IntArray) -> "LevelsAndBounds":
        """The table that takes every level to the nearest one kept, the lower one of two."""
        kept = np.array(levels, np.int64)
        return cls(kept, (kept[1:] + kept[:-1]) // 2 + 1)

    def table(self) -> npt.NDArray[np.int64]:
        """Level kept for each level of the int8 grid, shape (256,)."""
        return self.levels[np.searchsorted(self.bounds, np.arange(-128, 128), side="right")]

    def costs(self) -> tuple[float, ...]:
        """What each level costs beside its squared distance, least 0, so that `level_table` gives this table.

        Half a step below bound i the levels i and i + 1 cost the same.
        """
        middle = self.bounds - 0.5
        rises = np.square(middle - self.levels[:-1]) - np.square(middle - self.levels[1:])
        costs = np.concatenate([[0.0], np.cumsum(rises)])
        return tuple(map(float, costs - costs.min()))


def levels_for_output(
    levels: IntArray, response: OutputResponse, *, zero_level: int, reserve_zero: bool = False
) -> LevelsAndBounds:
    """Move kept levels of an int8 grid, and the bounds between them, to where the output's error is least.

    Descent from the levels given with nearest assignment, one number at a time, so the result is never worse than
    that by the response (damped, see `OutputResponse.damped`).

    Args:
        levels: Shape (k,), ascending, within [-128, 127]: where to start, such as what `cluster_activation` gives.
        response: Of the layers that read the tensor.
        zero_level: The level that stands for 0.
        reserve_zero: Whether it stays among the levels, if it is one of them.

    Returns:
        As many levels, and their bounds.

    Example:
        >>> steps = np.arange(-128.0, 128.0)
        >>> seen = np.where((steps >= 10) & (steps < 14), 1.0, 0.0)
        >>> response = OutputResponse(np.diag(seen), seen * steps, seen)
        >>> levels_for_output(np.array([0, 20]), response, zero_level=0, reserve_zero=True).levels
        array([ 0, 12])
    """
    steps = np.arange(-128, 128, dtype=np.float64) - zero_level
    search = _Descent(LevelsAndBounds.nearest(levels), response.damped(steps), zero_level)
    movable = [k for k, level in enumerate(levels) if not (reserve_zero and level == zero_level)]
    for _ in range(MAX_ROUNDS):
        moved = [search.move_level(k) for k in movable]
        moved += [search.move_bound(k) for k in range(len(levels) - 1)]
        if not any(moved):
            break
    return search.found


class _Descent:
    def __init__(self, start: LevelsAndBounds, response: OutputResponse, zero_level: int) -> None:
        self.found = start
        self._quadratic, self._zero_level = response.quadratic, zero_level
        self._table = start.table().astype(np.float64) - zero_level
        self._gradient = self._quadratic @ self._table - response.linear
        # Rounding must not make two places take turns.
        self._least_gain = 1e-10 * abs(float(response.linear @ self._table))

    def move_level(self, k: int) -> bool:
        """Move level k to the best of the places tried, if one is better than where it is."""
        levels = self.found.levels
        lowest = levels[k - 1] + 1 if k > 0 else -128
        highest = levels[k + 1] - 1 if k + 1 < levels.size else 127
        places = [place for place in _around(levels[k]) if lowest <= place <= highest]
        return self._take_best([replace(self.found, levels=_with(levels, k, place)) for place in places])

    def move_bound(self, k: int) -> bool:
        """Move the bound between levels k and k + 1 likewise; each level keeps a level of the grid."""
        bounds = self.found.bounds
        lowest = bounds[k - 1] + 1 if k > 0 else -127
        highest = bounds[k + 1] - 1 if k + 1 < bounds.size else 127
        places = [place for place in _around(bounds[k]) if lowest <= place <= highest]
        return self._take_best([replace(self.found, bounds=_with(bounds, k, place)) for place in places])

    def _take_best(self, candidates: list[LevelsAndBounds]) -> bool:
        best_gain, best = self._least_gain, None
        for candidate in candidates:
            change = candidate.table() - self._zero_level - self._table
            at = np.flatnonzero(change)
            step = change[at]
            gain = -float(2.0 * step @ self._gradient[at] + step @ self._quadratic[np.ix_(at, at)] @ step)
            if gain > best_gain:
                best_gain, best = gain, (candidate, at, step)
        if best is None:
            return False
        self.found, at, step = best
        self._table[at] += step
        self._gradient += self._quadratic[:, at] @ step
        return True


def _around(place: int) -> list[int]:
    return [int(place) + sign * size for size in MOVES for sign in (-1, 1)]


def _with(numbers: npt.NDArray[np.int64], k: int, number: int) -> npt.NDArray[np.int64]:
    changed = numbers.copy()
    changed[k] = number
    return changed
