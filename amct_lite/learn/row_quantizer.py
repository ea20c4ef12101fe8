"""Quantizers that see a weight as rows, one for each output channel."""

from typing import Any

import numpy as np

from amct_lite.learn.quantizer import Quantizer
from amct_lite.quantize.weight_rows import WeightLayout

__all__ = ["RowQuantizer", "from_rows", "to_rows"]


def to_rows(weight: Any, layout: WeightLayout) -> Any:
    """A stored weight as rows, one for each output channel: `WeightLayout.to_rows` for tensors."""
    split = weight.reshape(layout.stored(layout.split_shape)).permute(*np.argsort(layout.permutation).tolist())
    return split.reshape(layout.rows, layout.columns)


def from_rows(rows: Any, layout: WeightLayout) -> Any:
    """The inverse of `to_rows`."""
    return rows.reshape(layout.split_shape).permute(*layout.permutation).reshape(layout.weight_shape)


class RowQuantizer(Quantizer):
    """A quantizer of weights with one scale, or one for each row.

    Attributes:
        layout: How the weight is laid out.
        num_bits: Of a level.
        channel_wise: Whether each output channel has a scale of its own.
    """

    def __init__(self, layout: WeightLayout, num_bits: int, *, channel_wise: bool = True) -> None:
        super().__init__()
        self.layout, self.num_bits, self.channel_wise = layout, num_bits, channel_wise
