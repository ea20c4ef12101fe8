"""What a lossless weight compressor could reach: Shannon entropy of the levels."""

import numpy as np

from amct_lite.types import IntArray

__all__ = ["entropy_bits"]


def entropy_bits(values: IntArray) -> float:
    """Computes the Shannon entropy, -sum p * log2(p) over the distinct values.

    Args:
        values: Integer array, any shape.

    Returns:
        Bits per value; 0 for one distinct value or none.

    Example:
        >>> entropy_bits(np.array([0, 0, 7, 7], dtype=np.int8))
        1.0
    """
    if values.size == 0:
        return 0.0
    lowest, highest = int(values.min()), int(values.max())
    if highest - lowest < 2**16:
        counts = np.bincount(values.reshape(-1).astype(np.intp) - lowest)
        counts = counts[counts > 0]
    else:
        counts = np.unique(values, return_counts=True)[1]
    shares = counts / values.size
    # max() turns the -0.0 of a single value into 0.0.
    return max(0.0, float(-np.sum(shares * np.log2(shares))))
