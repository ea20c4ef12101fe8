"""Filters as products of two: exact at full rank, the nearest of their rank, and cheaper wherever they are used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.tensor_decompose.low_rank import decompose_filter, paying_rank, rank_for_energy

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(2, 5), st.integers(2, 5))


def random_filter(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def low_rank_filter(shape: tuple[int, int, int, int], rank: int, noise: float = 0.0) -> np.ndarray:
    out_channels, in_channels, height, width = shape
    vertical = random_filter((rank, in_channels, height), 1)
    horizontal = random_filter((out_channels, rank, width), 2)
    product = np.einsum("kci,nkj->ncij", vertical, horizontal)
    return (product + noise * random_filter(shape, 3)).astype(np.float32)


@given(shape=SHAPES, rank=st.integers(1, 3), seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_filter_of_low_rank_is_found_again_exactly(shape, rank: int, seed: int) -> None:
    weight = low_rank_filter(shape, rank)
    found = decompose_filter(weight, 1.0)
    if found is None:
        assert paying_rank(shape) < min(rank, shape[1] * shape[2], shape[0] * shape[3])
        return
    assert found.rank <= rank
    np.testing.assert_allclose(found.product(), weight, atol=1e-4 * np.abs(weight).max())


@pytest.mark.parametrize("kept_energy", [0.5, 0.8, 0.95])
def test_the_error_is_what_the_energy_given_up_says_and_no_smaller_rank_would_do(kept_energy: float) -> None:
    weight = low_rank_filter((32, 24, 3, 3), 20, noise=0.5)
    found = decompose_filter(weight, kept_energy)
    assert found is not None
    lost = np.sum((weight - found.product()) ** 2.0) / np.sum(weight**2.0)
    assert lost == pytest.approx(1 - found.kept_energy, abs=1e-5)
    assert found.kept_energy >= kept_energy
    matrix = weight.transpose(1, 2, 0, 3).reshape(24 * 3, 32 * 3).astype(np.float64)
    energies = np.linalg.svd(matrix, compute_uv=False) ** 2
    assert energies[: found.rank - 1].sum() / energies.sum() < kept_energy


def test_no_product_of_that_rank_found_by_fitting_is_nearer() -> None:
    """Alternating least squares from random starts, the textbook way to fit a product."""
    weight = random_filter((12, 10, 3, 3))
    found = decompose_filter(weight, 0.4)
    assert found is not None
    matrix = weight.transpose(1, 2, 0, 3).reshape(30, 36).astype(np.float64)
    ours = np.sum((weight - found.product()) ** 2.0)
    for seed in range(3):
        left = np.random.default_rng(seed).normal(size=(30, found.rank))
        for _ in range(60):
            right = np.linalg.lstsq(left, matrix, rcond=None)[0]
            left = np.linalg.lstsq(right.T, matrix.T, rcond=None)[0].T
        assert ours <= np.sum((matrix - left @ right) ** 2) * (1 + 1e-6)


@given(shape=SHAPES, stride=st.integers(1, 3), kept_energy=st.floats(0.05, 1.0))
@settings(max_examples=100, deadline=None)
def test_what_is_split_has_fewer_weights_and_fewer_multiply_adds(shape, stride: int, kept_energy: float) -> None:
    weight = random_filter(shape)
    found = decompose_filter(weight, kept_energy, stride=stride)
    if found is None:
        return
    assert found.vertical.size + found.horizontal.size < weight.size
    assert found.vertical.size * stride + found.horizontal.size < weight.size


@given(shape=SHAPES, stride=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_the_paying_rank_is_the_last_one_that_pays(shape, stride: int) -> None:
    out_channels, in_channels, height, width = shape
    term = in_channels * height * stride + out_channels * width
    assert paying_rank(shape, stride=stride) * term < np.prod(shape)
    assert (paying_rank(shape, stride=stride) + 1) * term >= np.prod(shape)


def test_a_filter_of_zeros_has_rank_one_and_the_whole_of_no_energy() -> None:
    found = decompose_filter(np.zeros((8, 8, 3, 3), np.float32), 0.9)
    assert found is not None
    assert (found.rank, found.kept_energy) == (1, 1.0)
    assert not found.product().any()


def test_all_energy_is_kept_by_what_rounding_cannot_tell_from_zero() -> None:
    assert rank_for_energy(np.array([1.0, 1e-3, 1e-9]), 1.0) == 2
