"""ONNX operators as PyTorch functions, one file a family: what a network must be made of to be trained."""

from amct_lite.learn.operators import convolution, elementwise, normalization, pooling, reduction, shape
from amct_lite.learn.operators.call import Call, Operator

__all__ = ["OPERATORS", "Call", "Operator"]

OPERATORS: dict[str, Operator] = {
    **convolution.OPERATORS,
    **pooling.OPERATORS,
    **normalization.OPERATORS,
    **elementwise.OPERATORS,
    **reduction.OPERATORS,
    **shape.OPERATORS,
}
"""Operator of the default domain -> its translation."""
