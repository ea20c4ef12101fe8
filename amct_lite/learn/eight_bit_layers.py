"""Layers on 8-bit integers: a scale for each output channel of a weight, a grid that follows the range for an input.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3; scales for each channel as in Krishnamoorthi 2018, "Quantizing deep convolutional networks for
efficient inference", section 3.1.1. What is stored is what `arq_quantize` stores.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from amct_lite.errors import ParameterError
from amct_lite.files.activation_params import MovingAverageParams
from amct_lite.files.config import ArqParams, FloatWeightParams, LayerConfig
from amct_lite.files.record import LayerRecord
from amct_lite.learn.input_quantizer import InputQuantizer
from amct_lite.learn.quantizer import straight_through
from amct_lite.learn.row_quantizer import RowQuantizer, from_rows, to_rows
from amct_lite.learn.saving import Learned
from amct_lite.quantize.weight_rows import WeightLayout
from amct_lite.types import Layer
from amct_lite.uniform.bias import raise_scales_for_bias
from amct_lite.uniform.grid import FLT_EPSILON

__all__ = ["SymmetricWeight", "learned_input", "learned_layer_of_integers"]


class SymmetricWeight(RowQuantizer):
    """Weights on symmetric levels whose scales cut off nothing, as `uniform.arq` has them; gradients pass straight."""

    def __init__(self, layout: WeightLayout, num_bits: int = 8, *, channel_wise: bool = True) -> None:
        """Describe the weight; see RowQuantizer."""
        super().__init__(layout, num_bits, channel_wise=channel_wise)

    def forward(self, weight: Any) -> Any:
        """The quantized weight."""
        if not self.enabled:
            return weight
        rows = to_rows(weight, self.layout)
        scale = self._scale(rows.detach())
        lowest, highest = -(2 ** (self.num_bits - 1)), 2 ** (self.num_bits - 1) - 1
        quantized = torch.round(rows.detach() / scale).clamp(lowest, highest) * scale
        return from_rows(straight_through(rows, quantized), self.layout)

    def scales(self, weight: Any) -> npt.NDArray[np.float32]:
        """What its levels are multiplied by, shape (rows,) or (1,)."""
        found: npt.NDArray[np.float32] = self._scale(to_rows(weight.detach(), self.layout)).reshape(-1).cpu().numpy()
        return found

    def _scale(self, rows: Any) -> Any:
        rows = rows.double() if self.channel_wise else rows.double().reshape(1, -1)
        low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
        scales = torch.maximum(high / (2 ** (self.num_bits - 1) - 1), -low / 2 ** (self.num_bits - 1))
        return torch.where(scales < FLT_EPSILON, torch.ones_like(scales), scales).float().reshape(-1, 1)


def learned_input(inputs: InputQuantizer) -> LayerRecord:
    """The record of a layer without weights."""
    grid, _ = inputs.grid()
    return LayerRecord(scale_d=grid.scale, offset_d=grid.offset)


def learned_layer_of_integers(
    layer: Layer, weight: Any, bias: Any | None, quantizer: SymmetricWeight, inputs: InputQuantizer
) -> Learned:
    """What training made of a layer.

    Args:
        layer: The layer.
        weight: Its float weight, a tensor.
        bias: Its bias, a tensor; None where it has none.
        quantizer: Of the weight.
        inputs: Of the input.

    Raises:
        ParameterError: The input has fewer than 8 bits.
    """
    grid, used = inputs.grid()
    if used:
        raise ParameterError("Integer layers take inputs of 8 bits.", layer=layer.name)
    activation = MovingAverageParams(act_algo="moving_average", averaging_constant=inputs.momentum)
    scales = quantizer.scales(weight)
    if layer.num_weights + 4 * scales.size >= 4 * layer.num_weights:
        params = FloatWeightParams(wts_algo="none")
        record = LayerRecord(scale_d=grid.scale, offset_d=grid.offset, float_weights=True)
        why = "its int8 form with scales would be no smaller"
        return Learned(LayerConfig(activation_quant_params=activation, weight_quant_params=params), record, why)
    if bias is not None:
        # Of channels whose weights are next to nothing beside the bias.
        scales, _ = raise_scales_for_bias(bias.detach().cpu().numpy().reshape(-1), scales, grid.scale)
    record = LayerRecord(
        scale_d=grid.scale,
        offset_d=grid.offset,
        scale_w=tuple(map(float, scales)),
        offset_w=(0,) * scales.size,
        weight_bits=quantizer.num_bits,
    )
    arq = ArqParams.model_validate({"num_bits": quantizer.num_bits, "channel_wise": quantizer.channel_wise})
    return Learned(LayerConfig(activation_quant_params=activation, weight_quant_params=arq), record)
