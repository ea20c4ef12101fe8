"""How far tensors are from their references, from sums that batches add to: constant memory, no second pass."""

import math
from dataclasses import dataclass

import numpy as np

from amct_lite.types import FloatArray

__all__ = ["ErrorMoments", "InputMoments"]


@dataclass
class ErrorMoments:
    """Sums over all batches of a tensor x' against its reference x.

    Attributes:
        signal: Sum of x ** 2.
        power: Sum of x' ** 2.
        noise: Sum of (x' - x) ** 2.
        product: Sum of x * x'.
    """

    signal: float = 0.0
    power: float = 0.0
    noise: float = 0.0
    product: float = 0.0

    def update(self, reference: FloatArray, values: FloatArray) -> None:
        """Take in one batch; both arrays have one shape, which may be empty."""
        x, y = (array.astype(np.float64).ravel() for array in (reference, values))
        self.signal += float(x @ x)
        self.power += float(y @ y)
        self.product += float(x @ y)
        # Not from the three others: where the two are near, their difference would be rounding.
        y -= x
        self.noise += float(y @ y)

    @property
    def sqnr_db(self) -> float:
        """10 * log10(signal / noise): inf where there is no noise, -inf where there is no signal."""
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the two, 1 where they are equal, 0 where one of them is zero everywhere."""
        if self.noise == 0.0:
            return 1.0
        return self.product / math.sqrt(self.signal * self.power) if self.signal * self.power > 0 else 0.0


@dataclass
class InputMoments:
    """What advice needs to know of a layer's float input.

    Attributes:
        low: Least value, at most 0.
        high: Largest value, at least 0.
        square: Sum of squares.
        count: Number of values.
    """

    low: float = 0.0
    high: float = 0.0
    square: float = 0.0
    count: int = 0

    def update(self, values: FloatArray) -> None:
        """Take in one batch, of any shape."""
        if not values.size:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        flat = values.ravel()
        self.square += float(np.dot(flat, flat))
        self.count += values.size

    @property
    def crest(self) -> float:
        """Largest magnitude over the root of the mean square; 0 for an input of zeros."""
        rms = math.sqrt(self.square / self.count) if self.count else 0.0
        return max(-self.low, self.high) / rms if rms > 0 else 0.0
