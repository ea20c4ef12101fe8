"""The quantization factors of one layer."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.codebook import Codebook
from amct_lite.files.range_file import RangeChoice
from amct_lite.files.weights_file import CalibratedWeight

__all__ = ["LayerRecord"]


@dataclass(frozen=True)
class LayerRecord:
    """The quantization factors of one layer.

    Attributes:
        scale_d: Step of the activation grid (a float32 value); None where the activation stays float.
        offset_d: Level that stands for 0.
        scale_w: One weight scale per output channel, or one for the tensor; () for a layer without weights.
        offset_w: As many zeros.
        shift_bit: As many shifts, for old chips; () where not used.
        cluster: The int8 levels that NUQ keeps for the weights, ascending; () without NUQ.
        cluster_cost: What each level of `cluster` costs beside its squared error, for entropy-aware NUQ: without it
            the reader could not find the assignment again. () where every weight goes to its nearest level.
        activation_cluster: The int8 levels that NUQ keeps for the activations, ascending; () without NUQ.
        activation_cluster_cost: What each level of `activation_cluster` costs beside its squared error; () where every
            value goes to its nearest level.
        input_shape: (channels, height, width) of the layer's input, () where unknown.
        skip_fusion: True where nothing may be folded into the layer.
        range_choice: How "auto" chose the activation's range; None with other algorithms.
        float_weights: True where the weights stay float and only the activation is quantized.
        activation_bits: Width of the activation grid's levels, 8 or 16; AMCT's act_type.
        weight_bits: Width of a uniform weight's levels, 4 to 8; AMCT's wts_type.
        as_read: The entry that it was read from, serialized, with what amct_lite has no use for: it is written again
            along with the factors. b"" for a record that was made here.
        codebook: What the weights become in place of scale_w; None where they do not become a codebook.
        weight: float32 array of the stored weight's shape that takes its place, before it is quantized or for good;
            None for the model's own.
        bias: float32 array, shape (out_channels,), that takes the bias's place; None for the model's own.
        tensor_balance_factor: By what each channel of the input is divided before it is quantized, the weight being
            multiplied by it; () without balancing. `scale_w` and `weight` are for the multiplied weight.
        equalized: True where the factors are for the weight that cross-layer equalization makes of the model's own.
        fakequant_precision_mode: Whether the fake-quant form rounds as a device that quantizes in float16:
            "FORCE_FP16_QUANT", else "DEFAULT".
    """

    scale_d: float | None = None
    offset_d: int = 0
    scale_w: tuple[float, ...] = ()
    offset_w: tuple[int, ...] = ()
    shift_bit: tuple[int, ...] = ()
    cluster: tuple[int, ...] = ()
    cluster_cost: tuple[float, ...] = ()
    activation_cluster: tuple[int, ...] = ()
    activation_cluster_cost: tuple[float, ...] = ()
    input_shape: tuple[int, ...] = ()
    skip_fusion: bool = False
    float_weights: bool = False
    activation_bits: int = 8
    weight_bits: int = 8
    tensor_balance_factor: tuple[float, ...] = ()
    equalized: bool = False
    fakequant_precision_mode: str = "DEFAULT"
    range_choice: RangeChoice | None = dataclasses.field(default=None, compare=False)
    as_read: bytes = dataclasses.field(default=b"", compare=False, repr=False)
    codebook: Codebook | None = dataclasses.field(default=None, compare=False)
    weight: npt.NDArray[np.float32] | None = dataclasses.field(default=None, compare=False)
    bias: npt.NDArray[np.float32] | None = dataclasses.field(default=None, compare=False)

    @property
    def calibrated_weight(self) -> CalibratedWeight:
        """What does not fit into a record."""
        return CalibratedWeight(self.codebook, self.weight, self.bias)

    @property
    def has_factors(self) -> bool:
        """Whether anything is quantized: AMCT also writes entries that only say skip_fusion."""
        return self.scale_d is not None or bool(self.scale_w) or self.codebook is not None
