"""The quantization config as data: one source for the JSON file, its checks, and its published schema.

Keys, defaults and order are AMCT's (its manual, "create_quant_config"); what we add is "target", "auto_nuq",
range algorithms beside "ifmr" and "hfmg", "wts_algo": "codebook_quantize" and "none", "nuq" among the activation's
parameters, and "entropy_weight" among the weights'.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
)

from amct_lite.files.activation_params import (
    ActivationQuantParams,
    AutoParams,
    FloatActivationParams,
    IfmrParams,
    MinMaxParams,
    MseParams,
    NuqActivationParams,
)
from amct_lite.files.codebook_params import CodebookParams
from amct_lite.files.config_document import plain, plain_fields
from amct_lite.files.strict_model import StrictModel as _Strict
from amct_lite.files.tensor_quantize import TensorQuantize, refuse_repetitions

__all__ = [
    "FORCE_FP16_QUANT",
    "ActivationQuantParams",
    "ArqParams",
    "AutoNuqOptions",
    "AutoParams",
    "CodebookParams",
    "FloatActivationParams",
    "FloatWeightParams",
    "IfmrParams",
    "LayerConfig",
    "MinMaxParams",
    "MseParams",
    "NuqActivationParams",
    "NuqParams",
    "QuantConfig",
    "TensorQuantize",
]

FORCE_FP16_QUANT = "FORCE_FP16_QUANT"
"""The fakequant_precision_mode beside "DEFAULT"."""

NUM_STEPS_LADDER = (128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4)
RATIO_LADDER = (0.5, 0.25, 0.125, 0.0625)


class _WeightParams(_Strict):
    channel_wise: bool | None = Field(
        default=None, description="A scale per output channel; by default where the layer's type allows it."
    )


class ArqParams(_WeightParams):
    """Uniform weights: symmetric, from minus to plus the largest magnitude."""

    wts_algo: Literal["arq_quantize"] = "arq_quantize"
    num_bits: Literal[4, 5, 6, 7, 8] = Field(default=8, description="Width of a level; stored as int8 all the same.")
    scale_algo: Literal["max", "mse"] = Field(
        default="max", description="Scales that cut off no weight, or those with the least squared error."
    )
    rounding: Literal["nearest", "adaround", "gptq", "auto"] = Field(
        default="nearest",
        description=(
            "Each weight by itself, or all by the layer's output on samples; auto is gptq where calibration has"
            " samples and an output channel at most 6144 weights, and nearest elsewhere."
        ),
    )
    bias_correction: bool = Field(
        default=False, description="Whether the bias takes back what quantization does to the mean output, on samples."
    )
    batch_norm_reestimation: bool = Field(
        default=False, description="Whether outputs keep the mean and the spread of the float network, on samples."
    )

    @property
    def sample_use(self) -> str | None:
        """The key that cannot do without samples; None where none is of that kind."""
        if self.rounding not in ("nearest", "auto"):
            return f'"rounding": "{self.rounding}"'
        if self.bias_correction:
            return '"bias_correction": true'
        return '"batch_norm_reestimation": true' if self.batch_norm_reestimation else None


class NuqParams(_WeightParams):
    """Non-uniform int8 weights: the best `num_steps` of the 256 levels."""

    wts_algo: Literal["nuq_quantize"]
    num_bits: Literal[8] = 8
    num_steps: int = Field(default=32, ge=2, le=256, description="Levels kept; AMCT's devices take 16 or 32.")
    num_of_iteration: int = Field(
        default=1, ge=0, le=5, description="How often clustering and re-fitting of the scale alternate."
    )
    entropy_weight: float = Field(
        default=0.0,
        ge=0,
        description="How much error, relative to the clustering's own, one bit saved per weight may cost; 0 is off.",
    )


class FloatWeightParams(_Strict):
    """Weights stay float: only the layer's input is quantized."""

    wts_algo: Literal["none"]
    refit: bool = Field(
        default=False, description="Fit the float weights and the bias to the quantized inputs, on samples."
    )


def _weight_algorithm(value: Any) -> str | None:
    return str(value.get("wts_algo", "arq_quantize")) if isinstance(value, dict) else getattr(value, "wts_algo", None)


WeightQuantParams = Annotated[
    Annotated[ArqParams, Tag("arq_quantize")]
    | Annotated[NuqParams, Tag("nuq_quantize")]
    | Annotated[CodebookParams, Tag("codebook_quantize")]
    | Annotated[FloatWeightParams, Tag("none")],
    Discriminator(_weight_algorithm),
]


OptionName = Annotated[
    str,
    Field(pattern=r"^(float|int8|nuq([2-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-6])|codebook[1-8]|uniform[4-7])$"),
]
"""A way to treat a layer's weights: "float", "int8", "nuq32" (levels), "codebook4" and "uniform4" (bits)."""


class LayerConfig(_Strict):
    """How one layer is quantized."""

    quant_enable: bool = True
    dmq_balancer_param: float | None = Field(
        default=None,
        ge=0.2,
        le=0.8,
        description="Migration strength: how much of its input's spread over channels moves into its weight.",
    )
    activation_quant_params: ActivationQuantParams = IfmrParams()
    weight_quant_params: WeightQuantParams | None = Field(default=None, description="None for a layer without weights.")
    search_space: list[OptionName] | None = Field(
        default=None,
        min_length=1,
        description="What a search may choose from for this layer, in place of the network's.",
    )


class AutoNuqOptions(_Strict):
    """What auto_nuq may choose from."""

    num_steps: list[Annotated[int, Field(ge=2, le=256)]] = Field(
        default=list(NUM_STEPS_LADDER), min_length=1, description="Level counts tried for weights."
    )
    target_compression_ratio: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=list(RATIO_LADDER),
        min_length=1,
        description="Ratios tried for the activations of layers that have a 'nuq' block.",
    )


def _only(kind: type) -> BeforeValidator:
    """Python's True equals 1 and its False 0, so that a Literal alone would take the one for the other."""

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"must be of type {kind.__name__}")
        return value

    return BeforeValidator(check)


class QuantConfig(BaseModel):
    """The whole config; every key beside the ones below is the name of a layer."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, title="amct_lite quantization config")
    __pydantic_extra__: dict[str, LayerConfig]

    version: Annotated[Literal[1], _only(int)] = 1
    batch_num: int = Field(default=1, gt=0, description="Batches that calibration reads.")
    activation_offset: bool = Field(default=True, description="Whether activation grids have an offset.")
    joint_quant: bool = Field(
        default=False, description="Whether tensors that Eltwise or Add adds up share their factors."
    )
    weight_offset: Annotated[Literal[False], _only(bool)] = Field(default=False, description="Weights are symmetric.")
    do_fusion: bool = Field(default=True, description="Fold BatchNormalization into the layer before it.")
    fakequant_precision_mode: Literal["DEFAULT", "FORCE_FP16_QUANT"] = Field(
        default="DEFAULT", description="Whether the fake-quant form also rounds as a device that quantizes in float16."
    )
    skip_fusion_layers: list[str] = Field(default=[], description="Layers into which nothing is folded.")
    tensor_quantize: list[TensorQuantize] = Field(
        default=[], description="Inputs of operators without weights that are quantized too."
    )
    cross_layer_equalization: bool = Field(
        default=False, description="Scale channels between layers so that both weights use their range equally."
    )
    target: str = Field(default="ascend", description="A built-in target, or the path of a target's JSON file.")
    integer_operators: list[str] | None = Field(
        default=None,
        description="Operators beside layers that compute on integers; by default the target's, [] for none.",
    )
    auto_nuq: AutoNuqOptions | None = Field(default=None, description="What auto_nuq may choose from.")
    search_space: list[OptionName] | None = Field(
        default=None,
        min_length=1,
        description="Makes auto_nuq choose among these ways to treat each layer's weights: float, int8, nuq{levels},"
        " codebook{bits}, uniform{bits}.",
    )

    @field_validator("tensor_quantize")
    @classmethod
    def _tensors_come_once(cls, value: list[TensorQuantize]) -> list[TensorQuantize]:
        refuse_repetitions(value)
        return value

    @property
    def layers(self) -> dict[str, LayerConfig]:
        """Layer name -> its config, in the file's order."""
        return dict(self.__pydantic_extra__)

    def to_document(self) -> dict[str, Any]:
        """The config as it is written: AMCT's order, layers sorted by name, keys that AMCT leaves out left out."""
        document = plain_fields(self, type(self).model_fields)
        document.update({name: plain(layer) for name, layer in sorted(self.layers.items())})
        return document
