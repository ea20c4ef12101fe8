"""Activations as N2UQ quantizes them: thresholds that are learned, levels that are evenly spaced.

Integer hardware gets them as a table. QuantizeLinear puts a value on a fine grid of 256 steps; the table takes each of
these to a level; and the levels are whole multiples of the fine step, so that an 8-bit kernel computes on them. The
thresholds lie between two steps of the fine grid in training too, so nothing is rounded on export.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from amct_lite.codebook.output_levels import LevelsAndBounds
from amct_lite.errors import TrainingError
from amct_lite.learn.generalized_straight_through import GeneralizedStraightThrough
from amct_lite.learn.quantizer import Quantizer, straight_through
from amct_lite.types import Grid

__all__ = ["LearnedThresholds"]

# The intervals together begin with this length: beside parameters of about 1 Adam's steps are small.
FIRST_LENGTH = 2.0

# Intervals and scales stay above it: they must not change their sign.
LEAST = 1e-3

# The fine grid's levels are those of uint8.
FINE_STEPS = 255

# Values of the first batch on which the first range is sought, and the ranges tried, as shares of the largest value.
MOST_VALUES = 2**16
SHARES = np.linspace(0.1, 1.0, 46)


class LearnedThresholds(Quantizer):
    """A quantizer of activations. It starts with evenly spaced thresholds that suit the first batch of training.

    In units of `unit`, the values times `input_scale` are compared with thresholds in the middle of intervals that
    begin at `start`; level k stands for (k - zero_level) * output_scale * unit * step. Where values can be negative,
    `zero_level` is above 0, so that zeros, as those of a convolution's padding, stay exact.

    Attributes:
        num_intervals: 2**num_bits - 1.
        step: FIRST_LENGTH / num_intervals: an interval at the beginning.
        start: Scalar.
        intervals: Shape (num_intervals,).
        input_scale: Scalar, 1 at the beginning.
        output_scale: Scalar, 1 at the beginning.
        unit: Half of the range that suits the first batch; 0 before there was one.
        zero_level: The level of 0.
    """

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        self.num_intervals = 2**num_bits - 1
        self.step = FIRST_LENGTH / self.num_intervals
        self.start = nn.Parameter(torch.zeros(()))
        self.intervals = nn.Parameter(torch.full((self.num_intervals,), self.step))
        self.input_scale = nn.Parameter(torch.ones(()))
        self.output_scale = nn.Parameter(torch.ones(()))
        self.register_buffer("unit", torch.zeros(()))
        self.register_buffer("zero_level", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Any) -> Any:
        """The quantized values; the values as they are before the first batch."""
        if not self.enabled:
            return values
        if float(self.unit) == 0.0:
            if not self.training:
                return values
            self._start_with(values.detach())
        values = values.float()  # under autocast they have too few digits for the fine grid
        grid, bounds = self.grid_and_bounds()
        zero_level, (multiple, _) = int(self.zero_level), self._layout()
        # As QuantizeLinear does, operation by operation.
        steps = torch.round(values.detach() / grid.scale).clamp(grid.q_min - grid.offset, grid.q_max - grid.offset)
        limits = torch.tensor(bounds - grid.offset, dtype=values.dtype, device=values.device)
        levels = torch.bucketize(steps, limits, right=True)
        exact = ((levels - zero_level) * multiple).to(values.dtype) * grid.scale
        inside = values / self.unit * self.input_scale.clamp(min=LEAST)
        stepped = GeneralizedStraightThrough.apply(
            inside, levels - zero_level, self.start, self.intervals.clamp(min=LEAST), self.step
        )
        return straight_through(stepped * (self.output_scale.clamp(min=LEAST) * self.unit), exact)

    def grid_and_bounds(self) -> tuple[Grid, Any]:
        """The fine grid, and for each level but the first where it begins.

        Returns:
            The grid; and int64 array, shape (num_intervals,), never descending: the first fine level that is above
            each threshold.

        Raises:
            TrainingError: No batch was seen yet.
        """
        if float(self.unit) == 0.0:
            raise TrainingError(
                "The thresholds have no values yet, for they begin with those that suit the first batch.",
                remedy="Call fit first.",
            )
        multiple, offset = self._layout()
        zero_level = int(self.zero_level)
        scale = float(np.float32(self._output_step() / multiple))
        first_above = np.floor(self._thresholds() / scale + 1.0).astype(np.int64)
        # Zero stays on its level, whatever was learned: thresholds of the levels above it are above it.
        below = np.arange(self.num_intervals) < zero_level
        first_above = np.where(below, np.minimum(first_above, 0), np.maximum(first_above, 1))
        bounds = np.clip(first_above + offset, -128, 127)
        return Grid(scale, offset), np.maximum.accumulate(bounds)

    def levels_and_bounds(self) -> tuple[Grid, LevelsAndBounds]:
        """The fine grid, and the levels kept of it with the bounds between them."""
        grid, bounds = self.grid_and_bounds()
        multiple, offset = self._layout()
        levels = offset + (np.arange(self.num_intervals + 1) - int(self.zero_level)) * multiple
        return grid, LevelsAndBounds(levels.astype(np.int64), bounds)

    def _output_step(self) -> float:
        return max(float(self.output_scale.detach()), LEAST) * (float(self.unit) * float(self.step))

    def _thresholds(self) -> Any:
        """float64 array, shape (num_intervals,): in units of the values."""
        intervals = np.maximum(self.intervals.detach().cpu().numpy().astype(np.float64), LEAST)
        middles = float(self.start.detach()) + np.cumsum(intervals) - intervals / 2
        return middles * float(self.unit) / max(float(self.input_scale.detach()), LEAST)

    def _layout(self) -> tuple[int, int]:
        """Fine steps from level to level, as many as leave the outermost thresholds on the grid; and where 0 is."""
        thresholds, zero_level = self._thresholds() / self._output_step(), int(self.zero_level)
        below = max(-float(thresholds[0]), float(zero_level)) if zero_level else 0.0
        above = max(float(thresholds[-1]), float(self.num_intervals - zero_level))
        multiple = max(1, math.floor((FINE_STEPS if below == zero_level else FINE_STEPS - 1) / (below + above)))
        return multiple, -128 + min(math.ceil(below * multiple), FINE_STEPS - (self.num_intervals - zero_level))

    def _start_with(self, values: Any) -> None:
        """Even steps with the least squared error on a batch."""
        flat = values.reshape(-1)
        flat = flat[:: max(1, len(flat) // MOST_VALUES)].double()
        low, high = min(float(flat.min()), 0.0), max(float(flat.max()), 0.0)
        if high - low <= 0.0 or not math.isfinite(high - low):
            raise TrainingError(
                "The values of a layer's input in the first batch are all 0, or not finite.",
                remedy="Put the layer into skip_layers, or check the data's preprocessing.",
            )
        zero_level = round(self.num_intervals * -low / (high - low)) if low < 0 else 0
        zero_level = min(max(zero_level, 1), self.num_intervals) if low < 0 else 0
        whole = max(high / max(self.num_intervals - zero_level, 0.5), -low / max(zero_level, 0.5))

        def error(step: float) -> float:
            levels = torch.clamp(torch.round(flat / step), -zero_level, self.num_intervals - zero_level)
            return float((flat - levels * step).square().mean())

        best = min((whole * share for share in SHARES), key=error)
        with torch.no_grad():
            self.unit.fill_(best / self.step)
            self.zero_level.fill_(zero_level)
            self.start.fill_(-zero_level * self.step)
