"""What quantizers that are trained have in common."""

from typing import Any

from torch import nn

__all__ = ["Quantizer", "round_straight_through", "straight_through"]


class Quantizer(nn.Module):
    """A module that quantizes what goes through it, so that gradients can pass.

    Attributes:
        enabled: False lets everything through as it is; ranges are followed all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True


def straight_through(values: Any, quantized: Any) -> Any:
    """The quantized values, whose gradient goes to the values as it is, and to what the quantized ones came from.

    The straight-through estimator of Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through
    Stochastic Neurons for Conditional Computation" (2013), section 4. The numbers are exactly the quantized ones:
    values - values is 0.
    """
    return quantized + (values - values.detach())


def round_straight_through(values: Any) -> Any:
    """Rounded half to even; gradients pass as if it was not."""
    return values + (values.round() - values).detach()
