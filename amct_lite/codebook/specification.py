"""What a codebook shall look like and how much work goes into it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.scale_format import scale_dtype

__all__ = [
    "MAX_CODE_BITS",
    "VECTOR_LEVEL_TYPE",
    "VECTOR_SIZES",
    "CodeForm",
    "CodebookSpec",
    "Refine",
    "VectorSize",
]

MAX_CODE_BITS = 8

VectorSize = Literal[1, 2, 4]
VECTOR_SIZES: tuple[VectorSize, ...] = (1, 2, 4)

# How levels of vectors are best stored: there are so many that their bytes count, and a 127th of the largest will do.
VECTOR_LEVEL_TYPE = LevelType.INT8

# The largest share of the codes' bytes that a table of vectors may take where no error is known to compare.
LARGEST_TABLE_SHARE = 0.015


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


@dataclass(frozen=True, order=True)
class CodeForm:
    """How many bits stand for how many weights.

    Attributes:
        code_bits: Bits of a code, 1 to 8.
        vector_size: Weights that it stands for: 1, 2 or 4.
    """

    code_bits: int
    vector_size: VectorSize = 1

    @classmethod
    def for_weight(cls, bits: int, num_weights: int) -> "CodeForm":
        """The longest vectors that a weight of that size can have for about the same bytes.

        Args:
            bits: Bits a weight.
            num_weights: Weights that share the table.
        """
        for size in reversed(VECTOR_SIZES[1:]):
            table_bytes = size * 2 ** (bits * size) * VECTOR_LEVEL_TYPE.size_bytes
            if bits * size <= MAX_CODE_BITS and table_bytes <= LARGEST_TABLE_SHARE * num_weights * bits / 8:
                return cls(bits * size, size)
        return cls(bits)

    @classmethod
    def to_refine(cls, bits: int, num_weights: int, refine: Refine) -> "CodeForm":
        """The same where moments refine the codes; else single ones: k-means of vectors would take most of the time.

        Args:
            bits: Bits a weight.
            num_weights: Weights that share the table.
            refine: What calibration data is used for.
        """
        return cls.for_weight(bits, num_weights) if refine.uses_moments else cls(bits)


@dataclass(frozen=True)
class CodebookSpec:
    """The form of a codebook.

    Attributes:
        num_levels: Levels of each table, 2 to 256.
        rows_per_table: Neighbouring rows of codes that share a table (output channels where a code stands for one
            weight); 0 for one table for all.
        channel_scales: Whether each output channel has a scale of its own.
        vector_size: Output channels whose weights of a column one code stands for: 1, 2 or 4.
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

    @property
    def bits_per_weight(self) -> float:
        """Bits of a code, for each weight that it stands for."""
        return self.code_bits / self.vector_size

    def code_rows(self, rows: int) -> int:
        """Rows of codes for that many output channels."""
        return -(-rows // self.vector_size)

    def num_tables(self, rows: int) -> int:
        """Tables of a weight with that many output channels."""
        return -(-self.code_rows(rows) // self.rows_per_table) if self.rows_per_table else 1

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes that a weight of that size takes: codes, tables, scales."""
        codes = -(-self.code_rows(rows) * columns * self.code_bits // 8)
        tables = self.num_tables(rows) * self.num_levels * self.vector_size * self.level_type.size_bytes
        scales = rows * scale_dtype(self.level_type, self.bits_per_weight).itemsize if self.channel_scales else 4
        return codes + tables + scales
