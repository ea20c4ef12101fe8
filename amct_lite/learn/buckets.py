"""Buckets: the parts of a weight that have quantization levels of their own, as in PocketFlow."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from amct_lite.errors import ParameterError
from amct_lite.learn.row_quantizer import from_rows, to_rows
from amct_lite.quantize.weight_rows import WeightLayout

__all__ = ["BucketType", "Buckets", "make_buckets"]


class BucketType(StrEnum):
    """What shares levels."""

    LAYER = "layer"
    CHANNEL = "channel"
    SPLIT = "split"


@dataclass(frozen=True)
class Buckets:
    """How a weight falls into buckets of one size, the last one being filled up.

    Attributes:
        layout: How the weight is laid out in rows, one for each output channel.
        kind: What shares levels: the layer, an output channel, or `size` neighbours of the rows one after the other.
        size: Weights of a bucket.
    """

    layout: WeightLayout
    kind: BucketType
    size: int

    @property
    def count(self) -> int:
        """How many there are."""
        return -(-self.layout.rows * self.layout.columns // self.size)

    @property
    def rows_per_table(self) -> int | None:
        """Output channels of a bucket; None where buckets begin or end within one, which no codebook can say."""
        if self.count == 1:
            return self.layout.rows
        return None if self.size % self.layout.columns else self.size // self.layout.columns

    def split(self, weight: Any) -> Any:
        """A stored weight, a tensor, as buckets, shape (count, size); its last number fills up the last one."""
        flat = to_rows(weight, self.layout).reshape(-1)
        missing = self.count * self.size - flat.numel()
        if missing:
            flat = torch.cat([flat, flat[-1:].detach().expand(missing)])
        return flat.reshape(self.count, self.size)

    def join(self, buckets: Any) -> Any:
        """Buckets as a stored weight, the inverse of `split`."""
        layout = self.layout
        flat = buckets.reshape(-1)[: layout.rows * layout.columns]
        return from_rows(flat, layout)


def make_buckets(layout: WeightLayout, kind: BucketType, bucket_size: int) -> Buckets:
    """Buckets of a kind.

    Args:
        layout: Of the weight.
        kind: What shares levels.
        bucket_size: Weights of a bucket, for SPLIT.

    Raises:
        ParameterError: bucket_size is below 2.
    """
    if bucket_size < 2:
        raise ParameterError(f"The 'bucket_size' parameter must be at least 2. Got {bucket_size!r} instead.")
    num_weights = math.prod(layout.weight_shape)
    sizes = {BucketType.LAYER: num_weights, BucketType.CHANNEL: layout.columns, BucketType.SPLIT: bucket_size}
    return Buckets(layout, kind, min(sizes[kind], num_weights))
