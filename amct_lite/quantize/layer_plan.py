"""What is done to one layer, and why not where nothing is done."""

from dataclasses import dataclass

from amct_lite.codebook.specification import CodebookSpec, Refine
from amct_lite.files.config import (
    ArqParams,
    CodebookParams,
    FloatActivationParams,
    FloatWeightParams,
    LayerConfig,
    NuqActivationParams,
    NuqParams,
)
from amct_lite.quantize.weight_rows import weight_layout
from amct_lite.types import Layer

__all__ = ["LayerPlan"]

# Moments of a layer's inputs take the square of its columns in memory, and rounding by them the cube in time: what
# "auto" rounds on samples ends between the widest convolutions (4608) and the first inner product of a VGG (25088).
MAX_FITTED_COLUMNS = 6144


@dataclass(frozen=True)
class LayerPlan:
    """What is done to one layer.

    Attributes:
        layer: The layer.
        config: How it is quantized; None for a layer that stays float.
        reason: Why it stays float, as a sentence; None for a layer that is quantized.
        channel_wise: Whether its weight has a scale per output channel.
        with_offset: Whether its activation grid has an offset.
        codebook: The codebook that its weight becomes; None where it does not become one.
        joint: Plans with the same value share one activation grid; None for a grid of its own.
    """

    layer: Layer
    config: LayerConfig | None = None
    reason: str | None = None
    channel_wise: bool = False
    with_offset: bool = False
    codebook: CodebookSpec | None = None
    joint: str | None = None

    @property
    def weight_params(self) -> ArqParams | NuqParams | CodebookParams | FloatWeightParams | None:
        """How the weight is quantized; None for a layer that stays float or has no weights."""
        return self.config.weight_quant_params if self.config is not None else None

    @property
    def quantizes_input(self) -> bool:
        """Whether the layer's input is quantized."""
        return self.config is not None and not isinstance(self.config.activation_quant_params, FloatActivationParams)

    @property
    def balances_input(self) -> bool:
        """Whether its input is divided channel by channel, and its weight multiplied."""
        return self.config is not None and self.config.dmq_balancer_param is not None

    @property
    def refines_codebook(self) -> bool:
        """Whether the codebook is chosen on samples."""
        return self.codebook is not None and self.codebook.refine is not Refine.NONE

    @property
    def refits_weight(self) -> bool:
        """Whether the float weight is fitted to the quantized input."""
        return isinstance(self.weight_params, FloatWeightParams) and self.weight_params.refit

    @property
    def has_output_aware_levels(self) -> bool:
        """Whether the input's levels are chosen by the error at the output."""
        nuq = self._nuq
        return nuq is not None and nuq.output_aware and self.layer.weight is not None

    @property
    def fits_bias(self) -> bool:
        """Whether the bias takes back what quantization does to the mean output, where the operator has one."""
        repaired = isinstance(self.weight_params, ArqParams) and self.weight_params.sample_use is not None
        return self.refits_weight or self.refines_codebook or repaired or self.prefers_samples

    @property
    def keeps_zero(self) -> bool:
        """Whether level 0 stays among the input's levels when they are chosen anew."""
        return self._nuq is not None and self._nuq.reserve_zero is not False

    @property
    def _nuq(self) -> NuqActivationParams | None:
        return None if self.config is None else self.config.activation_quant_params.nuq

    @property
    def uses_samples(self) -> bool:
        """Whether something of the layer is chosen in the closed loop, where there are samples."""
        return self.needs_samples or self.prefers_samples

    @property
    def needs_samples(self) -> bool:
        """Whether something of the layer cannot be chosen without samples."""
        return self.sample_use is not None

    @property
    def prefers_samples(self) -> bool:
        """Whether the weight is rounded on samples where there are any, and by itself where there are none."""
        wanted = isinstance(self.weight_params, ArqParams) and self.weight_params.rounding == "auto"
        return wanted and weight_layout(self.layer).columns <= MAX_FITTED_COLUMNS

    @property
    def sample_use(self) -> str | None:
        """The key of the config that cannot do without samples; None where none is of that kind."""
        if self.codebook is not None and self.refines_codebook:
            return f'"refine": "{self.codebook.refine}"'
        if self.refits_weight:
            return '"refit": true'
        if isinstance(self.weight_params, ArqParams) and self.weight_params.sample_use is not None:
            return self.weight_params.sample_use
        return '"output_aware": true' if self.has_output_aware_levels else None
