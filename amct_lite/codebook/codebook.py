"""A codebook: a weight as indices into a few levels, times a scale per output channel."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.scale_format import FULL_SCALES, ScaleFormat, scale_format
from amct_lite.errors import ParameterError

__all__ = ["Codebook"]


@dataclass(frozen=True)
class Codebook:
    """A weight matrix, one row for each output channel, in few bits.

    Row r is `tables[r // rows_per_table][codes[r]] * scales[r]`. With a vector size of d each code stands for d weights
    of the same column: with p rows of codes, component i of row r of the codes is row `i * p + r` of the matrix; rows
    that fill up the last component are cut off.

    Attributes:
        tables: float32 array, shape (num_tables, num_levels, vector_size): the levels, exactly as they come back
            from `level_type` (whole numbers in [-128, 127] for INT8).
        codes: uint8 array, shape (ceil(num_rows / vector_size), num_columns).
        scales: float32 array, shape (num_rows,), or (1,) for one scale for all rows.
        num_rows: Rows of the matrix.
        rows_per_table: How many neighbouring rows of codes share a table; all of them where there is one.
        level_type: How the levels are stored.
    """

    tables: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    num_rows: int
    rows_per_table: int
    level_type: LevelType = LevelType.FLOAT32

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        num_tables, num_levels, vector_size = self.tables.shape
        code_rows, rows = self.codes.shape[0], self.num_rows
        if not 1 <= num_levels <= 256:
            raise ParameterError(f"A table must have 1 to 256 levels. Got {num_levels} instead.")
        if num_tables != -(-code_rows // self.rows_per_table) or code_rows != -(-rows // vector_size):
            raise ParameterError("The codes of a codebook do not fit its tables.")
        if self.scales.shape not in ((rows,), (1,)):
            raise ParameterError(f"A codebook of {rows} rows takes 1 or {rows} scales. Got {self.scales.size} instead.")
        if self.codes.size and int(self.codes.max()) >= num_levels:
            raise ParameterError("A code points behind the end of its table.")

    @property
    def num_levels(self) -> int:
        """Levels of each table."""
        return int(self.tables.shape[1])

    @property
    def num_columns(self) -> int:
        """Columns of the matrix."""
        return int(self.codes.shape[1])

    @property
    def vector_size(self) -> int:
        """Rows that one code stands for."""
        return int(self.tables.shape[2])

    @property
    def code_bits(self) -> int:
        """Bits of one stored code."""
        return max(1, (self.num_levels - 1).bit_length())

    @property
    def bits_per_weight(self) -> float:
        """Bits of a code, for each weight that it stands for."""
        return self.code_bits / self.vector_size

    @property
    def scale_format(self) -> ScaleFormat:
        """How the scales are stored: in the fewest bytes that hold all of them exactly."""
        if self.scales.size > 1:
            wanted = scale_format(self.level_type, self.bits_per_weight, self.scales)
            # Scales that were fitted may have left the highest bytes unused.
            roomy = ScaleFormat(wanted.dtype, wanted.exponent + 1)
            for candidate in (wanted, roomy, ScaleFormat(np.dtype(np.float16))):
                if np.array_equal(candidate.rounded(self.scales), self.scales):
                    return candidate
        return FULL_SCALES

    @property
    def stored_bytes(self) -> int:
        """Bytes of codes, tables and scales together, as `packed_weight` stores them."""
        code_bytes = -(-self.codes.size * self.code_bits // 8)
        return (
            code_bytes
            + self.tables.size * self.level_type.size_bytes
            + self.scales.size * self.scale_format.dtype.itemsize
        )

    @property
    def table_of_row(self) -> npt.NDArray[np.intp]:
        """Which table each row of codes has, shape (rows of codes,)."""
        return np.arange(self.codes.shape[0]) // self.rows_per_table

    def levels_of_weights(self) -> npt.NDArray[np.float32]:
        """The level that each weight is on, before its scale: float32 array, shape (num_rows, num_columns)."""
        table, components = self.table_of_row[:, None], np.moveaxis(self.tables, 2, 0)
        return np.concatenate([levels[table, self.codes] for levels in components])[: self.num_rows]

    def decode(self) -> npt.NDArray[np.float32]:
        """The weights that every form must give, float32 array, shape (num_rows, num_columns).

        Example:
            >>> book = Codebook(
            ...     tables=np.array([[[-1.0], [2.0]]], np.float32),
            ...     codes=np.array([[0, 1, 1]], np.uint8),
            ...     scales=np.array([0.5], np.float32),
            ...     num_rows=1,
            ...     rows_per_table=1,
            ... )
            >>> book.decode()
            array([[-0.5,  1. ,  1. ]], dtype=float32)
        """
        return np.asarray(self.levels_of_weights() * self.scales[:, None], dtype=np.float32)
