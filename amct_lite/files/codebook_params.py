"""The parameters of "codebook_quantize" in the config."""

from typing import Literal

from pydantic import Field, model_validator

from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.specification import VECTOR_LEVEL_TYPE, CodebookSpec, Refine, VectorSize
from amct_lite.files.strict_model import StrictModel

__all__ = ["CodebookParams"]


class CodebookParams(StrictModel):
    """Weights as packed indices into a few levels: small on disk."""

    wts_algo: Literal["codebook_quantize"]
    num_bits: int = Field(default=4, ge=1, le=8, description="Bits of a stored index; 2**num_bits levels a table.")
    num_steps: int | None = Field(
        default=None, ge=2, le=256, description="Levels of a table where they are not 2**num_bits."
    )
    channel_wise: bool | None = Field(
        default=None, description="A scale per output channel; by default where several channels share a table."
    )
    channels_per_table: int = Field(
        default=0, ge=0, description="Neighbouring output channels that share a table; 0: one table for the layer."
    )
    vector_size: VectorSize = Field(default=1, description="Output channels whose weights one index stands for.")
    reserve_zero: bool = Field(default=False, description="Whether one level is exactly 0.")
    level_type: LevelType | None = Field(
        default=None,
        strict=False,
        description="How levels are stored; by default int8 where the input is quantized, so that integer kernels"
        " run, and for vectors, else float16, or float32 where that cannot hold them.",
    )
    refine: Refine | None = Field(
        default=None,
        strict=False,
        description="What calibration data is used for; by default lnq.",
    )

    @model_validator(mode="after")
    def _steps_fit_the_bits(self) -> "CodebookParams":
        if self.num_steps is not None and "num_bits" in self.model_fields_set and self.num_steps > 2**self.num_bits:
            raise ValueError(f"num_steps must be at most 2**num_bits = {2**self.num_bits}")
        return self

    @property
    def num_levels(self) -> int:
        """Levels of a table."""
        return self.num_steps if self.num_steps is not None else 2**self.num_bits

    def specification(self, *, quantized_input: bool) -> CodebookSpec:
        """The codebook that these parameters ask for.

        Args:
            quantized_input: Whether the layer's input is quantized.
        """
        shared = self.channels_per_table != 1 or self.vector_size > 1
        vectors = VECTOR_LEVEL_TYPE if self.vector_size > 1 else LevelType.FLOAT16
        default = LevelType.INT8 if quantized_input else vectors
        return CodebookSpec(
            num_levels=self.num_levels,
            rows_per_table=self.channels_per_table,
            channel_scales=shared if self.channel_wise is None else self.channel_wise,
            vector_size=self.vector_size,
            reserve_zero=self.reserve_zero,
            level_type=self.level_type or default,
            refine=self.refine or Refine.LNQ,
        )
