"""Biases as integer kernels add them: whole steps of the sum, which are an input's scale times a weight's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from amct_lite.learn.quantizer import Quantizer, straight_through

__all__ = ["AccumulatorBias"]

Scales = Callable[[], tuple[npt.NDArray[np.float32], float] | None]


class AccumulatorBias(Quantizer):
    """A quantizer of biases, so that training sees the numbers of `uniform.bias.quantize_bias`."""

    def __init__(self, scales: Scales) -> None:
        """Say what decides the steps.

        Args:
            scales: Gives the weight's scales, shape (out_channels,) or (1,), and the input's; None before the first
                batch.
        """
        super().__init__()
        self._scales = scales

    def forward(self, bias: Any) -> Any:
        """The quantized bias; the bias as it is before the first batch."""
        found = self._scales() if self.enabled else None
        if found is None:
            return bias
        step = torch.from_numpy(found[0] * np.float32(found[1])).to(bias.device)
        # Where int32 does not hold them, export raises the scales or adds the bias in float: as good as this.
        levels = torch.round(bias.detach().double().reshape(-1) / step.double())
        return straight_through(bias, (levels.float() * step).reshape(bias.shape))
