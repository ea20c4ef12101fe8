"""A quantized layer: what a record and a float weight make together, the numbers that every form must give."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.lookup import level_table
from amct_lite.quantize.weight_rows import from_rows
from amct_lite.types import Grid, Layer
from amct_lite.uniform.arq import dequantize_weight

__all__ = ["QuantizedLayer"]


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer in integers, or in codes.

    Attributes:
        layer: The layer.
        grid: Grid of its activation; None where that stays float.
        activation_levels: The levels that activation NUQ keeps, ascending; None without it.
        activation_costs: What each of them costs beside its squared distance; () where the nearest is taken.
        weight: int8 array of the stored weight's shape, whatever the width of its levels; None for a layer without
            weights or with float ones, and where the levels of its codebook are no int8 values.
        scale_w: float32 array of shape (out_channels,) or (1,); empty for a layer without weights.
        weight_levels: The levels that weight NUQ keeps, ascending; None without it.
        bias: int32 array of shape (out_channels,) at scale_w * scale_d; None without a constant bias, and where
            weight or activation is float.
        codebook: The codebook that the weight is; None where it is none.
        float_weight: float32 array of the stored weight's shape that takes its place and stays float; None where the
            weight is quantized, or left alone.
        float_bias: float32 array of shape (out_channels,) that takes the place of the layer's own bias; None where
            that stays, or `bias` does.
        weight_bits: Width of the levels in `weight`, 4 to 8.
        shift_bit: By how many bits a device with an int16 stage shifts the accumulator right, one for each of scale_w;
            () where it does not.
        float16: Whether the fake-quant forms round as a device that quantizes in float16.
    """

    layer: Layer
    grid: Grid | None
    activation_levels: tuple[int, ...] | None
    weight: npt.NDArray[np.int8] | None
    scale_w: npt.NDArray[np.float32]
    weight_levels: tuple[int, ...] | None
    bias: npt.NDArray[np.int32] | None
    codebook: Codebook | None = None
    float_weight: npt.NDArray[np.float32] | None = None
    float_bias: npt.NDArray[np.float32] | None = None
    activation_costs: tuple[float, ...] = ()
    weight_bits: int = 8
    shift_bit: tuple[int, ...] = ()
    float16: bool = False

    @property
    def has_weight(self) -> bool:
        """Whether the layer's weight is quantized, in whatever form."""
        return self.weight is not None or self.codebook is not None

    @property
    def replaces_weight(self) -> bool:
        """Whether the layer gets a weight other than its own float one."""
        return self.has_weight or self.float_weight is not None

    @property
    def has_bias(self) -> bool:
        """Whether the layer gets a bias other than its own float one."""
        return self.bias is not None or self.float_bias is not None

    @property
    def runs_on_integers(self) -> bool:
        """Whether both operands are integers, so that an integer kernel can run the layer."""
        return self.grid is not None and (self.weight is not None or self.layer.weight is None)

    @property
    def has_float_weights(self) -> bool:
        """Whether only the activation is quantized, though the layer has weights."""
        return not self.has_weight and self.layer.weight is not None

    @property
    def scale_axis(self) -> int | None:
        """Axis of the weight along which scale_w runs; None for one scale."""
        return self.layer.output_channel_axis if self.scale_w.size > 1 else None

    def bias_scale(self) -> npt.NDArray[np.float32]:
        """scale_w * scale_d in float32, as every runtime computes it, shape of scale_w."""
        assert self.grid is not None
        return self.scale_w * np.float32(self.grid.scale)

    def accumulator_scale(self) -> npt.NDArray[np.float32]:
        """What a unit of the layer's integer output stands for: one number, or one for each output channel."""
        assert self.grid is not None
        return self.bias_scale() if self.weight is not None else np.array([self.grid.scale], np.float32)

    def decode_weight(self) -> npt.NDArray[np.float32]:
        """The float32 weight that every exported form must give, in the stored weight's shape."""
        if self.codebook is not None:
            return np.ascontiguousarray(from_rows(self.codebook.decode(), self.layer))
        if self.float_weight is not None:
            return self.float_weight
        if self.weight is None:
            raise ValueError(f"layer {self.layer.name} has no weight")
        return dequantize_weight(self.weight, self.scale_w, axis=self.scale_axis)

    def decode_bias(self) -> npt.NDArray[np.float32]:
        """The float32 bias that every exported form must give, shape (out_channels,)."""
        if self.float_bias is not None:
            return self.float_bias
        if self.bias is None:
            raise ValueError(f"layer {self.layer.name} has no bias")
        return self.bias.astype(np.float32) * self.bias_scale()

    def activation_table(self) -> npt.NDArray[np.int8] | None:
        """Level -> kept level, int8 array of shape (256,) indexed by q + 128; None without activation NUQ."""
        if self.activation_levels is None:
            return None
        return level_table(np.array(self.activation_levels), self.activation_costs).astype(np.int8)
