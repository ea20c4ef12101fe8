"""Weights onto levels: equally spaced ones, or quantization points that are trained; a table of levels a bucket."""

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.exact_floats import best_float_levels
from amct_lite.codebook.level_type import LevelType, float_type
from amct_lite.learn.buckets import Buckets
from amct_lite.learn.quantizer import Quantizer, straight_through

__all__ = ["INIT_STYLES", "LevelQuantizer", "PointQuantizer", "UniformQuantizer"]

INIT_STYLES = ("quantile", "uniform", "optimal")


class LevelQuantizer(Quantizer):
    """Each weight goes to a level of its bucket's table, exactly as the codebook that is saved says it.

    Attributes:
        buckets: What shares a table.
        num_levels: Levels of a table.
        level_type: How levels are stored; they are rounded to it in training already.
    """

    def __init__(self, buckets: Buckets, num_bits: int, weight: Any, level_type: LevelType) -> None:
        """Prepare for a weight.

        Args:
            buckets: How it falls into buckets.
            num_bits: A table has 2**num_bits levels.
            weight: The float weight, a tensor.
            level_type: FLOAT16, which becomes FLOAT32 for weights too small or too large for it, or FLOAT32.
        """
        super().__init__()
        self.buckets = buckets
        self.num_levels = 2**num_bits
        self.level_type = float_type(level_type, weight.detach().numpy().astype(np.float64), np.ones(1))

    @abstractmethod
    def tables_and_codes(self, buckets: Any) -> tuple[Any, Any]:
        """Levels, shape (count, num_levels), not yet rounded; and what says for each weight which of them it takes."""

    def forward(self, weight: Any) -> Any:
        """The quantized weight; its gradient goes to the weight as it is, and to what the levels came from."""
        if not self.enabled:
            return weight
        buckets = self.buckets.split(weight)
        tables, codes = self._stored(buckets)
        return straight_through(weight, self.buckets.join(tables.gather(1, codes)))

    def codebook(self, weight: Any) -> Codebook | None:
        """What is saved of the weight; None where a bucket does not consist of whole output channels."""
        rows_per_table, layout = self.buckets.rows_per_table, self.buckets.layout
        if rows_per_table is None:
            return None
        with torch.no_grad():
            tables, codes = self._stored(self.buckets.split(weight))
        flat = codes.reshape(-1)[: layout.rows * layout.columns].numpy()
        return Codebook(
            tables=np.ascontiguousarray(tables.numpy()[:, :, None], np.float32),
            codes=np.ascontiguousarray(flat.reshape(layout.rows, layout.columns), np.uint8),
            scales=np.ones(1, np.float32),
            num_rows=layout.rows,
            rows_per_table=rows_per_table,
            level_type=self.level_type,
        )

    def _stored(self, buckets: Any) -> tuple[Any, Any]:
        tables, codes = self.tables_and_codes(buckets)
        return self._rounded(tables), codes

    def _rounded(self, levels: Any) -> Any:
        """Levels as they come back from the file."""
        if self.level_type is LevelType.FLOAT32:
            return levels
        return straight_through(levels, levels.detach().half().float())


class UniformQuantizer(LevelQuantizer):
    """Equally spaced levels from a bucket's least to its greatest weight.

    With alpha = max - min, beta = min and n = 2**k - 1, a weight w becomes alpha * round(n * (w - beta) / alpha) / n +
    beta. Source: PocketFlow (Wu et al. 2018), documentation of UniformQuantLearner, "Algorithm"; its alpha and beta
    have no gradients either.
    """

    def tables_and_codes(self, buckets: Any) -> tuple[Any, Any]:
        """See the class."""
        low, span = _range(buckets)
        steps = self.num_levels - 1
        codes = ((buckets.detach() - low) / span * steps).round().clamp(0, steps)
        spaced = torch.arange(self.num_levels, dtype=buckets.dtype, device=buckets.device) / steps
        return low + span * spaced, codes.long()


class PointQuantizer(LevelQuantizer):
    """Quantization points of a bucket's own: each weight goes to the nearest.

    The points are numbers of [0, 1] that stand for where in the bucket's range, from its least to its greatest weight,
    they are, so that they follow their weights. The gradient of a point is the sum of those of its weights. Source:
    PocketFlow (Wu et al. 2018), documentation of NonUniformQuantLearner, "Algorithm".

    Attributes:
        points: Parameter of shape (buckets, levels).
    """

    def __init__(self, buckets: Buckets, num_bits: int, weight: Any, level_type: LevelType, init_style: str) -> None:
        """Place the points.

        Args:
            buckets: See LevelQuantizer.
            num_bits: See LevelQuantizer.
            weight: See LevelQuantizer.
            level_type: See LevelQuantizer.
            init_style: "quantile": as many weights between any two; "uniform": as far apart; "optimal": with the least
                squared error, by exact clustering.
        """
        super().__init__(buckets, num_bits, weight, level_type)
        parts = buckets.split(weight.detach())
        low, span = _range(parts)
        place = {"quantile": _quantiles, "uniform": _spaced, "optimal": _optimal}[init_style]
        shares = ((parts - low) / span).numpy()
        found = np.stack([place(share, self.num_levels) for share in shares]).astype(np.float32)
        self.points = nn.Parameter(torch.from_numpy(found))

    def tables_and_codes(self, buckets: Any) -> tuple[Any, Any]:
        """See the class."""
        low, span = _range(buckets)
        levels = low + span * self.points
        levels = levels.gather(1, levels.detach().argsort(1))
        stored = self._rounded(levels).detach()
        halfway = (stored[:, :-1] + stored[:, 1:]) / 2
        return levels, torch.searchsorted(halfway.contiguous(), buckets.detach().contiguous())


def _range(buckets: Any) -> tuple[Any, Any]:
    """Least number and span of each bucket, shape (count, 1), without gradients; a span is never 0."""
    numbers = buckets.detach()
    low = numbers.amin(1, keepdim=True)
    span = numbers.amax(1, keepdim=True) - low
    return low, torch.where(span > 0, span, torch.ones_like(span))


def _quantiles(shares: npt.NDArray[np.float32], num_levels: int) -> npt.NDArray[np.floating]:
    found: npt.NDArray[np.floating] = np.quantile(
        shares, np.arange(1, num_levels + 1) / (num_levels + 1), method="nearest"
    )
    return found


def _spaced(_shares: npt.NDArray[np.float32], num_levels: int) -> npt.NDArray[np.floating]:
    return np.linspace(0.0, 1.0, num_levels)


def _optimal(shares: npt.NDArray[np.float32], num_levels: int) -> npt.NDArray[np.floating]:
    levels = best_float_levels(shares, num_levels).levels
    return np.append(levels, np.full(num_levels - len(levels), levels[-1]))
