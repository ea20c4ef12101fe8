"""Tables of levels that rows of a weight matrix share, while codes and levels are still being chosen."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.nearest_codes import nearest_codes
from amct_lite.types import FloatArray

__all__ = ["LevelTables", "RowTables", "sums_by_code"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]


class LevelTables(Protocol):
    """Which levels each row may use, each weight by itself or several rows together."""

    @property
    def levels(self) -> Float64Array:
        """Shape (num_tables, num_levels), or (num_tables, num_levels, vector_size) of vectors."""
        ...

    @property
    def vector_size(self) -> int:
        """Rows that one code stands for."""
        ...

    def nearest(self, values: FloatArray, importance: Float64Array | None = None) -> IntpArray:
        """The codes with the least squared error.

        Args:
            values: Float array, shape (rows,) or (rows, n): weights divided by their row's scale.
            importance: Not negative, of the same shape: what the square of each value's error counts. Of consequence
                where a code stands for several values; None: all alike.

        Returns:
            Codes, shape (rows of codes,) or (rows of codes, n).
        """
        ...

    def decode(self, codes: IntpArray, levels: Float64Array | None = None) -> Float64Array:
        """What codes stand for, shape (rows,) or (rows, n); with other levels if such are given."""
        ...

    def sums(self, codes: IntpArray, values: Float64Array) -> Float64Array:
        """The sum of the values on each level, in the levels' shape: the transpose of `decode`.

        Args:
            codes: Shape (rows of codes, n).
            values: Shape (rows, n).
        """
        ...

    def with_levels(self, levels: Float64Array, codes: IntpArray) -> "tuple[LevelTables, IntpArray]":
        """The same rows with other levels in the place of the present ones, and the codes that now stand for them."""
        ...


@dataclass(frozen=True)
class RowTables:
    """Levels of single weights.

    Attributes:
        levels: float64 array, shape (num_tables, num_levels), each row ascending.
        table_of_row: int array, shape (rows,).
    """

    levels: Float64Array
    table_of_row: IntpArray

    @property
    def vector_size(self) -> int:
        """One row to a code."""
        return 1

    def nearest(self, values: FloatArray, importance: Float64Array | None = None) -> IntpArray:  # noqa: ARG002
        """See `LevelTables.nearest`; halfway between two levels the lower one. Of many values, float32 is fastest."""
        middles = (self.levels[:, 1:] + self.levels[:, :-1]) / 2.0
        if len(middles) == 1:
            if values.dtype == np.float32 and (np.diff(self.levels[0]) > 0.0).all():
                return nearest_codes(values, self.levels[0]).astype(np.intp)
            return np.searchsorted(middles[0], values)
        codes = np.empty(values.shape, np.intp)
        for table, bounds in enumerate(middles):
            own = self.table_of_row == table
            codes[own] = np.searchsorted(bounds, values[own])
        return codes

    def decode(self, codes: IntpArray, levels: Float64Array | None = None) -> Float64Array:
        """See `LevelTables.decode`."""
        levels = self.levels if levels is None else levels
        if len(levels) == 1:
            return np.take(levels[0], codes)
        table = self.table_of_row if codes.ndim == 1 else self.table_of_row[:, None]
        return np.asarray(levels[table, codes])

    def sums(self, codes: IntpArray, values: Float64Array) -> Float64Array:
        """See `LevelTables.sums`."""
        return sums_by_code(self.levels.shape, self.table_of_row, codes, values)

    def with_levels(self, levels: Float64Array, codes: IntpArray) -> "tuple[RowTables, IntpArray]":
        """See `LevelTables.with_levels`; levels are put in ascending order."""
        order: IntpArray = np.argsort(levels, axis=1, kind="stable")
        place: IntpArray = np.argsort(order, axis=1)
        moved: IntpArray = place[self.table_of_row[:, None], codes]
        return RowTables(np.take_along_axis(levels, order, axis=1), self.table_of_row), moved


def sums_by_code(
    shape: tuple[int, ...], table_of_row: IntpArray, codes: IntpArray, values: Float64Array
) -> Float64Array:
    """The sum of the values under each code of each table.

    Args:
        shape: (num_tables, num_levels).
        table_of_row: Shape (rows,).
        codes: Shape (rows, n).
        values: Shape (rows, n).
    """
    num_tables, num_levels = shape
    flat = codes if num_tables == 1 else codes + table_of_row[:, None] * num_levels
    counted = np.bincount(flat.reshape(-1), values.reshape(-1), num_tables * num_levels)
    return counted.astype(np.float64).reshape(shape)
