"""Scales with the least squared error: never worse than those that cut off nothing, near to a fine search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.uniform.arq import dequantize_weight, quantize_weight, weight_scales
from amct_lite.uniform.mse_scales import mse_scales


def errors(weight, scales, axis, num_bits, importance=1.0):
    q = quantize_weight(weight, scales, axis=axis, num_bits=num_bits)
    squares = np.square(dequantize_weight(q, scales, axis=axis) - weight) * importance
    return squares.sum() if axis is None else squares.reshape(len(weight), -1).sum(axis=1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), axis=st.sampled_from([0, None]), num_bits=st.integers(2, 8))
def test_never_worse_than_the_widest_scales(seed, axis, num_bits):
    weight = np.random.default_rng(seed).standard_t(3, size=(4, 6, 3, 3)).astype(np.float32)
    widest = errors(weight, weight_scales(weight, axis=axis, num_bits=num_bits), axis, num_bits)
    found = errors(weight, mse_scales(weight, axis=axis, num_bits=num_bits), axis, num_bits)
    assert np.all(found <= widest * (1 + 1e-6))


@pytest.mark.parametrize("num_bits", [3, 4, 6])
def test_near_to_a_fine_search(num_bits):
    weight = np.random.default_rng(0).laplace(size=(1, 2000)).astype(np.float32)
    widest = weight_scales(weight, axis=0, num_bits=num_bits)
    best = min(errors(weight, widest * np.float32(share), 0, num_bits)[0] for share in np.linspace(0.2, 1, 801))
    assert errors(weight, mse_scales(weight, axis=0, num_bits=num_bits), 0, num_bits)[0] <= 1.02 * best


def test_importance_counts():
    weight = np.array([[1.0, 1.02, 0.98, 4.0]], np.float32)
    importance = np.array([[1.0, 1.0, 1.0, 1000.0]])
    scale = mse_scales(weight, axis=0, num_bits=3, importance=importance)
    plain = mse_scales(weight, axis=0, num_bits=3)
    assert errors(weight, scale, 0, 3, importance)[0] <= errors(weight, plain, 0, 3, importance)[0]


def test_zeros_stay_zeros():
    assert mse_scales(np.zeros((2, 3), np.float32), axis=0).tolist() == [1.0, 1.0]
