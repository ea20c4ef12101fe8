"""A codebook: a weight as indices into a few levels, times a scale per output channel."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError

__all__ = ["LEAST_SHARE", "Codebook", "LevelType", "ScaleFormat", "float_type", "scale_format"]

# Below 2**-14 float16 loses digits. The largest level lies well above that; a scale of 2**-20 of the largest one keeps
# four bits, as many as the weights that it scales. Channels below that are dead: training drove them to zero.
LEAST_FLOAT16 = 2.0**-8
LEAST_SHARE = 2.0**-20


class LevelType(StrEnum):
    """How the levels of a table are stored; scales are float32 beside float32 levels, else float16."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"

    @property
    def size_bytes(self) -> int:
        """Bytes of one stored level."""
        return np.dtype(self.value).itemsize

    @property
    def scale_dtype(self) -> np.dtype[np.floating]:
        """The type in which scales are stored."""
        return np.dtype(np.float32 if self is LevelType.FLOAT32 else np.float16)


@dataclass(frozen=True)
class ScaleFormat:
    """How the scales of a codebook are stored: numbers of a type, all times the same power of two.

    Attributes:
        dtype: float32 or float16.
        exponent: Of the power of two; 0 where the type holds the scales as they are.
    """

    dtype: np.dtype[np.floating]
    exponent: int = 0

    def stored(self, scales: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """The numbers to store, of the type."""
        with np.errstate(over="ignore"):
            return np.ldexp(scales.astype(np.float64), -self.exponent).astype(self.dtype)

    def loaded(self, stored: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The scales that stored numbers stand for."""
        return np.ldexp(stored.astype(np.float64), self.exponent)

    def rounded(self, scales: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """What comes back of scales."""
        return self.loaded(self.stored(scales))


@dataclass(frozen=True)
class Codebook:
    """A weight matrix, one row for each output channel, in few bits.

    Row r is `tables[r // rows_per_table][codes[r]] * scales[r]`. With a vector size of d each code stands for d
    neighbouring columns; columns that fill up the last vector are cut off.

    Attributes:
        tables: float32 array, shape (num_tables, num_levels, vector_size): the levels, exactly as they come back
            from `level_type` (whole numbers in [-128, 127] for INT8).
        codes: uint8 array, shape (rows, ceil(num_columns / vector_size)).
        scales: float32 array, shape (rows,), or (1,) for one scale for all rows.
        num_columns: Columns of the matrix.
        rows_per_table: How many neighbouring rows share a table; the number of rows where there is one.
        level_type: How the levels are stored.
    """

    tables: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    num_columns: int
    rows_per_table: int
    level_type: LevelType = LevelType.FLOAT32

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        num_tables, num_levels, vector_size = self.tables.shape
        rows, vectors = self.codes.shape
        if not 1 <= num_levels <= 256:
            raise ParameterError(f"A table must have 1 to 256 levels. Got {num_levels} instead.")
        if num_tables != -(-rows // self.rows_per_table) or vectors != -(-self.num_columns // vector_size):
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
    def vector_size(self) -> int:
        """Columns that one code stands for."""
        return int(self.tables.shape[2])

    @property
    def code_bits(self) -> int:
        """Bits of one stored code."""
        return max(1, (self.num_levels - 1).bit_length())

    @property
    def scale_format(self) -> ScaleFormat:
        """How the scales are stored: as floats of 16 bits where these hold all of them exactly, else of 32."""
        short = self.level_type.scale_dtype
        for wanted in (ScaleFormat(short), scale_format(self.level_type, self.scales)):
            if np.array_equal(wanted.rounded(self.scales), self.scales):
                return wanted
        return ScaleFormat(np.dtype(np.float32))

    @property
    def stored_bytes(self) -> int:
        """Bytes of codes, tables and scales together, as `packed_weight` stores them."""
        code_bytes = -(-self.codes.size * self.code_bits // 8)
        return (
            code_bytes
            + self.tables.size * self.level_type.size_bytes
            + self.scales.size * self.scale_format.dtype.itemsize
        )

    def decode(self) -> npt.NDArray[np.float32]:
        """The weights that every form must give, float32 array, shape (rows, num_columns).

        Example:
            >>> book = Codebook(
            ...     tables=np.array([[[-1.0], [2.0]]], np.float32),
            ...     codes=np.array([[0, 1, 1]], np.uint8),
            ...     scales=np.array([0.5], np.float32),
            ...     num_columns=3,
            ...     rows_per_table=1,
            ... )
            >>> book.decode()
            array([[-0.5,  1. ,  1. ]], dtype=float32)
        """
        rows = self.codes.shape[0]
        table_of_row = np.arange(rows) // self.rows_per_table
        values = self.tables[table_of_row[:, None], self.codes].reshape(rows, -1)[:, : self.num_columns]
        return np.asarray(values * self.scales[:, None], dtype=np.float32)


def float_type(wanted: LevelType, levels: npt.NDArray[np.float64], scales: npt.NDArray[np.float64]) -> LevelType:
    """float16 where it was asked for and can hold the levels under the largest scale, else float32.

    Args:
        wanted: FLOAT16 or FLOAT32.
        levels: float64 array, any shape.
        scales: float64 array, any shape, positive.
    """
    largest = float(np.abs(levels).max()) * float(scales.max())
    fits = LEAST_FLOAT16 <= largest <= float(np.finfo(np.float16).max)
    return wanted if fits or largest == 0.0 else LevelType.FLOAT32


def scale_format(level_type: LevelType, scales: npt.NDArray[np.floating]) -> ScaleFormat:
    """The format for scales beside levels of a type: with a shared exponent where float16 alone loses their digits.

    Args:
        level_type: How the levels are stored.
        scales: Float array, any shape, positive.
    """
    if level_type.scale_dtype == np.float32:
        return ScaleFormat(level_type.scale_dtype)
    largest = float(scales.max())
    if scales.min() >= LEAST_SHARE and largest <= float(np.finfo(np.float16).max):
        return ScaleFormat(level_type.scale_dtype)
    # The largest one lands just below float16's own limit, so that those far smaller keep all their digits.
    return ScaleFormat(level_type.scale_dtype, math.frexp(largest)[1] - 15)
