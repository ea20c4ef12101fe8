"""Inputs of layers onto a uniform grid that follows their range while training."""

from typing import Any

import numpy as np
import torch

from amct_lite.errors import TrainingError
from amct_lite.learn.quantizer import Quantizer, round_straight_through
from amct_lite.types import Grid

__all__ = ["InputQuantizer"]

INT8_LEVELS = 256


class InputQuantizer(Quantizer):
    """A grid of 2**num_bits levels from the moving averages of the batches' least and greatest numbers.

    0 is one of the levels, as every runtime needs it. Gradients pass straight through within the range and end beyond
    it. Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3.1 (exponential moving averages, nudged ranges), equation 12.

    Attributes:
        num_bits: 2 to 8.
        momentum: Weight of a new batch's range against all before it.
    """

    def __init__(self, num_bits: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.num_bits, self.momentum = num_bits, momentum
        self.register_buffer("range", torch.zeros(2))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Any) -> Any:
        """The numbers on the grid; in training their range is followed first."""
        if self.training:
            self._follow(values.detach())
        if not self.enabled:
            return values
        scale, zero = self._steps()
        steps = (round_straight_through(values / scale) + zero).clamp(0, 2**self.num_bits - 1)
        return (steps - zero) * scale

    def grid(self) -> tuple[Grid, tuple[int, ...]]:
        """The grid of int8 that holds it, and the levels of that which are used; () where all are.

        Fewer than 8 bits are the lowest levels of int8: what lies above goes to the highest of them.

        Raises:
            TrainingError: No batch has gone through it yet.
        """
        if not int(self.batches):
            raise TrainingError("No range of the activations is known.", remedy="Call fit before save.")
        scale, zero = self._steps()
        used = () if self.num_bits == 8 else tuple(range(-INT8_LEVELS // 2, -INT8_LEVELS // 2 + 2**self.num_bits))
        return Grid(float(scale), int(zero) - INT8_LEVELS // 2), used

    def _follow(self, values: Any) -> None:
        found = torch.stack([values.amin().clamp(max=0), values.amax().clamp(min=0)]).to(self.range)
        share = torch.where(self.batches == 0, torch.ones_like(self.range), torch.full_like(self.range, self.momentum))
        self.range.copy_(self.range + share * (found - self.range))
        self.batches.add_(1)

    def _steps(self) -> tuple[Any, Any]:
        """Step and zero point, tensors."""
        low, high = self.range
        scale = ((high - low) / (2**self.num_bits - 1)).clamp(min=float(np.finfo(np.float32).eps))
        return scale, (-low / scale).round()
