"""How a layer's input is quantized, as data: a model for each range algorithm, told apart by act_algo."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from amct_lite.files.strict_model import StrictModel

__all__ = [
    "ACTIVATION_PARAMS",
    "ActivationQuantParams",
    "AutoParams",
    "EntropyParams",
    "FloatActivationParams",
    "HfmgParams",
    "IfmrParams",
    "MinMaxParams",
    "MovingAverageParams",
    "MseParams",
    "NuqActivationParams",
    "PercentileParams",
]


class NuqActivationParams(StrictModel):
    """Non-uniform quantization of a layer's input."""

    target_compression_ratio: float = Field(
        gt=0, le=1, description="Levels kept / original levels; 0.125 keeps 32 of 256."
    )
    reserve_zero: bool | None = Field(
        default=None, description="Whether 0 is among the levels; by default where the tensor ends at 0, as after Relu."
    )
    output_aware: bool = Field(
        default=False, description="Choose the levels by the error they make at the layer's output, on samples."
    )


class _ActivationParams(StrictModel):
    num_bits: Literal[8, 16] = 8
    asymmetric: bool | None = Field(
        default=None, description="Whether the grid has an offset; overrides activation_offset where given."
    )
    nuq: NuqActivationParams | None = Field(default=None, description="Cluster the levels of the quantized tensor.")

    @model_validator(mode="after")
    def _nuq_is_for_8_bits(self) -> Self:
        if self.nuq is not None and self.num_bits != 8:
            raise ValueError("nuq clusters the 256 levels of 8 bits: num_bits must be 8 beside it")
        return self


class IfmrParams(_ActivationParams):
    """Range by AMCT's IFMR: a search around a percentile for the least squared error."""

    act_algo: Literal["ifmr"] = "ifmr"
    max_percentile: float = Field(default=0.999999, gt=0.5, le=1)
    min_percentile: float = Field(default=0.999999, gt=0.5, le=1)
    search_range: list[float] = Field(default=[0.7, 1.3], min_length=2, max_length=2)
    search_step: float = Field(default=0.01, gt=0, validate_default=True)

    @field_validator("search_range")
    @classmethod
    def _range_ascends(cls, value: list[float]) -> list[float]:
        start, end = value
        if not 0 < start < end:
            raise ValueError("must be [start, end] with 0 < start < end")
        return value

    @field_validator("search_step")
    @classmethod
    def _step_fits_into_the_range(cls, value: float, info: ValidationInfo) -> float:
        start, end = info.data.get("search_range", (0.0, float("inf")))
        # 1.0 - 0.9 is a little less than 0.1 in binary.
        if value > (end - start) * (1 + 1e-9):
            raise ValueError(f"must be at most the length of search_range, {end - start:g}")
        return value


class MinMaxParams(_ActivationParams):
    """Range from the smallest to the largest value seen."""

    act_algo: Literal["minmax"]


class HfmgParams(_ActivationParams):
    """Range by AMCT's HFMG: values are given up from both ends while the squared error falls."""

    act_algo: Literal["hfmg"]
    num_of_bins: Literal[1024, 2048, 4096, 8192] = Field(default=4096, description="Bins over the range, at most.")


class PercentileParams(_ActivationParams):
    """Range between two percentiles of the values seen."""

    act_algo: Literal["percentile"]
    max_percentile: float = Field(default=0.9999, gt=0.5, le=1)
    min_percentile: float = Field(default=0.9999, gt=0.5, le=1)


class EntropyParams(_ActivationParams):
    """Range with the least Kullback-Leibler divergence between the values and their quantized twins."""

    act_algo: Literal["entropy"]
    num_of_bins: Literal[1024, 2048, 4096, 8192] = Field(default=2048, description="Bins over the range, at most.")


class MseParams(_ActivationParams):
    """Range with the least squared error, both ends searched."""

    act_algo: Literal["mse"]


class MovingAverageParams(_ActivationParams):
    """Exponential moving averages of the batches' extremes: the one range that depends on the batches' order."""

    act_algo: Literal["moving_average"]
    averaging_constant: float = Field(default=0.1, gt=0, le=1, description="Weight of a new batch against all before.")


class AutoParams(_ActivationParams):
    """The range, of those that the other algorithms find, with the least error at the outputs that it reaches."""

    act_algo: Literal["auto"]


class FloatActivationParams(StrictModel):
    """The layer's input stays float; only its weights are compressed."""

    act_algo: Literal["none"]

    @property
    def nuq(self) -> None:
        """Levels of a float tensor are not clustered."""
        return None


def _activation_algorithm(value: Any) -> str | None:
    return str(value.get("act_algo", "ifmr")) if isinstance(value, dict) else getattr(value, "act_algo", None)


ActivationQuantParams = Annotated[
    Annotated[IfmrParams, Tag("ifmr")]
    | Annotated[HfmgParams, Tag("hfmg")]
    | Annotated[MinMaxParams, Tag("minmax")]
    | Annotated[MovingAverageParams, Tag("moving_average")]
    | Annotated[PercentileParams, Tag("percentile")]
    | Annotated[EntropyParams, Tag("entropy")]
    | Annotated[MseParams, Tag("mse")]
    | Annotated[AutoParams, Tag("auto")]
    | Annotated[FloatActivationParams, Tag("none")],
    Discriminator(_activation_algorithm),
]

ACTIVATION_PARAMS: dict[str, type[StrictModel]] = {
    "ifmr": IfmrParams,
    "hfmg": HfmgParams,
    "minmax": MinMaxParams,
    "moving_average": MovingAverageParams,
    "percentile": PercentileParams,
    "entropy": EntropyParams,
    "mse": MseParams,
    "auto": AutoParams,
    "none": FloatActivationParams,
}
"""The models by act_algo."""
