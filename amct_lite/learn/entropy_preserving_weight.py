"""Weights as N2UQ quantizes them: even levels on weights that are scaled so that the levels are used evenly.

Source: Liu et al. (CVPR 2022, arXiv 2111.14826), section "Entropy preserving weight regularization": a quantized weight
carries the most information where all levels are used equally often, and for the usual shapes of weights they about are
where each output channel is divided by

    s = (2**n - 1) / 2**(n-1) * mean |W|

before it is cut off at -1 and 1 and rounded to one of 2**n levels between them. The levels are odd numbers, -3, -1, 1
and 3 for two bits, times s / (2**n - 1): integers to every int8 kernel.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from amct_lite.learn.quantizer import straight_through
from amct_lite.learn.row_quantizer import RowQuantizer, from_rows, to_rows
from amct_lite.quantize.weight_rows import WeightLayout

__all__ = ["EntropyPreservingWeight"]

# A channel of zeros has no scale.
LEAST_SCALE = 2.0**-40


class EntropyPreservingWeight(RowQuantizer):
    """A quantizer of weights; gradients pass where nothing is cut off, and none go to the scale."""

    def __init__(self, layout: WeightLayout, num_bits: int, *, channel_wise: bool = True) -> None:
        """Describe the weight; see RowQuantizer."""
        super().__init__(layout, num_bits, channel_wise=channel_wise)
        self._steps = 2**num_bits - 1

    def forward(self, weight: Any) -> Any:
        """The quantized weight."""
        if not self.enabled:
            return weight
        rows = to_rows(weight, self.layout)
        scale = self._scale(rows)
        inside = torch.clamp(rows / scale, -1.0, 1.0)
        quantized = self._levels(inside.detach()) * (scale / self._steps)
        return from_rows(straight_through(inside * scale, quantized), self.layout)

    def levels_and_scales(self, weight: Any) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """The weight as integers.

        Args:
            weight: Tensor of the stored weight's shape.

        Returns:
            Odd numbers, int8 array, shape (rows, columns); and float32 array, shape (rows,) or (1,): what they are
            multiplied by.
        """
        with torch.no_grad():
            rows = to_rows(weight, self.layout)
            levels = self._levels(torch.clamp(rows / self._scale(rows), -1.0, 1.0))
            return levels.cpu().numpy().astype(np.int8), self.scales(weight)

    def scales(self, weight: Any) -> npt.NDArray[np.float32]:
        """What its levels are multiplied by, shape (rows,) or (1,)."""
        scale = self._scale(to_rows(weight.detach(), self.layout)) / self._steps
        found: npt.NDArray[np.float32] = scale.reshape(-1).cpu().numpy()
        return found

    def _levels(self, inside: Any) -> Any:
        """Odd numbers in [-steps, steps] for values in [-1, 1]."""
        return 2 * torch.round((inside + 1) * (self._steps / 2)) - self._steps

    def _scale(self, rows: Any) -> Any:
        size = rows.detach().abs().mean(1, keepdim=True) if self.channel_wise else rows.detach().abs().mean()
        return (size * (self._steps / 2 ** (self.num_bits - 1))).clamp(min=LEAST_SCALE).reshape(-1, 1)
