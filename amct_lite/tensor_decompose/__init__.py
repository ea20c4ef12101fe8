"""Tensor decomposition: convolutions split into two cheaper ones. The name is AMCT's module path."""

from amct_lite.tensor_decompose.decomposition import Decomposed, auto_decomposition

__all__ = ["Decomposed", "auto_decomposition"]
