"""What a codebook shall look like and how much work goes into it."""

from dataclasses import dataclass
from enum import StrEnum

from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.scale_format import scale_dtype

__all__ = ["CodebookSpec", "Refine"]


class Refine(StrEnum):
    """What calibration data is used for, each step including the ones before it."""

    NONE = "none"
    BIAS = "bias"
    GPTQ = "gptq"
    LNQ = "lnq"

    @property
    def uses_moments(self) -> bool:
        """Whether codes are chosen by what the layer's inputs look like."""
        return self in (Refine.GPTQ, Refine.LNQ)


@dataclass(frozen=True)
class CodebookSpec:
    """The form of a codebook.

    Attributes:
        num_levels: Levels of each table, 2 to 256.
        rows_per_table: Neighbouring output channels that share a table; 0 for one table for all.
        channel_scales: Whether each output channel has a scale of its own.
        vector_size: Columns that one code stands for: 1, 2 or 4.
        reserve_zero: Whether one level is exactly 0.
        level_type: How levels are stored.
        refine: What calibration data is used for.
    """

    num_levels: int = 16
    rows_per_table: int = 0
    channel_scales: bool = True
    vector_size: int = 1
    reserve_zero: bool = False
    level_type: LevelType = LevelType.FLOAT32
    refine: Refine = Refine.NONE

    @property
    def code_bits(self) -> int:
        """Bits of one stored code."""
        return max(1, (self.num_levels - 1).bit_length())

    def num_tables(self, rows: int) -> int:
        """Tables of a weight with that many output channels."""
        return -(-rows // self.rows_per_table) if self.rows_per_table else 1

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes that a weight of that size takes: codes, tables, scales."""
        codes = -(-rows * -(-columns // self.vector_size) * self.code_bits // 8)
        tables = self.num_tables(rows) * self.num_levels * self.vector_size * self.level_type.size_bytes
        scales = rows * scale_dtype(self.level_type, self.num_levels).itemsize if self.channel_scales else 4
        return codes + tables + scales
