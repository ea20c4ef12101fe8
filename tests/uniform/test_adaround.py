"""AdaRound: never worse than the nearest levels, the best of all where all can be tried."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.codebook.least_squares import output_error
from amct_lite.uniform.adaround import adaround_levels


def layer(seed, rows, size, groups=1):
    rng = np.random.default_rng(seed)
    x = np.maximum(
        rng.normal(size=(groups, 200, size)) @ (np.eye(size) + 0.3 * rng.normal(size=(groups, size, size))), 0
    )
    quadratic = x.transpose(0, 2, 1) @ x / 200 + 0.01 * np.eye(size)
    weight = rng.normal(size=(groups, rows, size))
    return weight, quadratic, np.abs(weight).max(axis=2) / 7


def error(weight, quadratic, scales, levels):
    return output_error(weight, quadratic, levels * scales[:, :, None])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), groups=st.sampled_from([1, 3]), num_bits=st.sampled_from([2, 4, 8]))
def test_never_worse_than_nearest_and_within_one_level(seed, groups, num_bits):
    weight, quadratic, scales = layer(seed, 3, 7, groups)
    scales = scales * 7 / (2 ** (num_bits - 1) - 1)
    levels = adaround_levels(weight, quadratic, scales, num_bits=num_bits)
    normal = weight / scales[:, :, None]
    low, high = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1
    nearest = np.clip(np.rint(normal), low, high)
    assert error(weight, quadratic, scales, levels) <= error(weight, quadratic, scales, nearest) * (1 + 1e-9)
    assert (np.abs(levels - normal) <= 1.0 + 1e-9).all()
    assert low <= levels.min() <= levels.max() <= high


@pytest.mark.parametrize("seed", range(5))
def test_near_to_the_best_of_all_roundings(seed):
    weight, quadratic, scales = layer(seed, 1, 8)
    floors = np.floor(weight / scales[:, :, None])
    best = min(error(weight, quadratic, scales, floors + np.array(ups)) for ups in itertools.product((0, 1), repeat=8))
    nearest = error(weight, quadratic, scales, np.rint(weight / scales[:, :, None]))
    found = error(weight, quadratic, scales, adaround_levels(weight, quadratic, scales, num_bits=4))
    # At most a fifth of what there is to gain is left.
    assert found - best <= 0.2 * (nearest - best) + 1e-12


def test_the_same_twice():
    weight, quadratic, scales = layer(1, 4, 20)
    first, second = (adaround_levels(weight, quadratic, scales, num_bits=4) for _ in range(2))
    assert np.array_equal(first, second)
