"""A kh x kw filter as a kh x 1 filter and a 1 x kw filter behind it: numpy only.

Jaderberg, Vedaldi and Zisserman 2014, "Speeding up Convolutional Neural Networks with Low Rank Expansions", arXiv
1405.3866, section 2.1, "scheme 2": K vertical filters v_k over all input channels, then horizontal filters h_n^k that
make every output channel of them,

    W[n, c, i, j]  ~  sum over k of h[n, k, j] v[k, c, i]

With the weight as a matrix of rows (c, i) and columns (n, j) that is a product of rank K. The nearest one in squared
error is its singular value decomposition cut after K terms (Tai et al. 2016, "Convolutional neural networks with
low-rank regularization", arXiv 1511.06067, theorem 1); with all terms it is exact.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Factors", "decompose_filter", "paying_rank", "rank_for_energy"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """The two filters that take a filter's place.

    Attributes:
        vertical: float32 array, shape (rank, in_channels, kh, 1).
        horizontal: float32 array, shape (out_channels, rank, 1, kw).
        kept_energy: Sum of the squares of the singular values kept / of all.
        full_rank: From this rank on the two filters are the filter exactly.
    """

    vertical: Float32Array
    horizontal: Float32Array
    kept_energy: float
    full_rank: int

    @property
    def rank(self) -> int:
        """Channels between the two filters."""
        return int(self.vertical.shape[0])

    def product(self) -> Float32Array:
        """The filter that the two are together, float32 array of shape (out_channels, in_channels, kh, kw)."""
        product: Float32Array = np.einsum("kci,nkj->ncij", self.vertical[..., 0], self.horizontal[:, :, 0])
        return product


def decompose_filter(weight: Float32Array, kept_energy: float, *, stride: int = 1) -> Factors | None:
    """Split a filter where that saves multiply-adds.

    Args:
        weight: float32 array, shape (out_channels, in_channels, kh, kw).
        kept_energy: In (0, 1]; the rank is the least one that keeps this share of the filter's energy.
        stride: Of the filter along the width: the first filter works before it, on that many times as many positions.

    Returns:
        None where so high a rank would not save anything.
    """
    out_channels, in_channels, height, width = weight.shape
    matrix = weight.astype(np.float64).transpose(1, 2, 0, 3).reshape(in_channels * height, out_channels * width)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    rank = rank_for_energy(values, kept_energy)
    if rank > paying_rank(weight.shape, stride=stride):
        return None
    # The root of each value goes to either side, so that both filters' weights are of like size.
    roots = np.sqrt(values[:rank])
    vertical = (left[:, :rank] * roots).T.reshape(rank, in_channels, height, 1)
    horizontal = (roots[:, None] * right[:rank]).reshape(rank, out_channels, width).transpose(1, 0, 2)[:, :, None]
    energies = values**2
    return Factors(
        np.ascontiguousarray(vertical, np.float32),
        np.ascontiguousarray(horizontal, np.float32),
        float(energies[:rank].sum() / energies.sum()) if energies.any() else 1.0,
        len(values),
    )


def rank_for_energy(singular_values: Float64Array, kept_energy: float) -> int:
    """The least rank that keeps a share of the energy, at least 1.

    Args:
        singular_values: float64 array, descending.
        kept_energy: In (0, 1].

    Example:
        >>> rank_for_energy(np.array([3.0, 1.0, 0.0]), 0.8), rank_for_energy(np.array([3.0, 1.0, 0.0]), 1.0)
        (1, 2)
    """
    energies = singular_values**2
    lost = energies.sum() - np.cumsum(energies)
    # What rounding leaves of a sum of zeros is no energy.
    allowed = max(1 - kept_energy, 1e-12) * energies.sum()
    return int(np.argmax(lost <= allowed)) + 1


def paying_rank(shape: tuple[int, ...], *, stride: int = 1) -> int:
    """The largest rank with fewer multiply-adds, and weights, than the filter itself; 0 where there is none.

    Args:
        shape: (out_channels, in_channels, kh, kw).
        stride: As for `decompose_filter`.

    Example:
        >>> paying_rank((64, 64, 3, 3))
        95
    """
    out_channels, in_channels, height, width = shape
    whole = out_channels * in_channels * height * width
    a_term = in_channels * height * stride + out_channels * width
    return (whole - 1) // a_term
