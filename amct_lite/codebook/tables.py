"""Tables of levels that rows of a weight matrix share, while codes and levels are still being chosen."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.nearest_codes import nearest_codes
from amct_lite.types import FloatArray

__all__ = ["RowTables"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class RowTables:
    """Which levels each row may use.

    Attributes:
        levels: float64 array, shape (num_tables, num_levels), each row ascending.
        table_of_row: int array, shape (rows,).
    """

    levels: Float64Array
    table_of_row: IntpArray

    def nearest(self, values: FloatArray) -> IntpArray:
        """The code of the nearest level; halfway between two levels the lower one.

        Args:
            values: Float array, shape (rows,) or (rows, n): weights divided by their row's scale. Of many values,
                float32 is the fastest.

        Returns:
            Codes of the same shape.
        """
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

    def decode(self, codes: IntpArray) -> Float64Array:
        """The levels of codes of shape (rows,) or (rows, n)."""
        if len(self.levels) == 1:
            return np.take(self.levels[0], codes)
        table = self.table_of_row if codes.ndim == 1 else self.table_of_row[:, None]
        return np.asarray(self.levels[table, codes])
