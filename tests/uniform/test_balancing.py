"""Balancing factors: eq. 4 of SmoothQuant, channel by channel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amct_lite.uniform.balancing import balance_factors

MAXIMA = arrays(np.float64, 4, elements=st.floats(1e-4, 1e4))


@given(MAXIMA, MAXIMA)
def test_half_strength_gives_activation_and_weight_the_same_range(activation: np.ndarray, weight: np.ndarray) -> None:
    factors = balance_factors(activation, weight, 0.5)
    np.testing.assert_allclose(activation / factors, weight * factors, rtol=1e-5)


@pytest.mark.parametrize("strength", [0.2, 0.35, 0.8])
def test_the_formula(strength: float) -> None:
    factors = balance_factors(np.array([9.0, 0.5]), np.array([0.1, 2.0]), strength)
    expected = [9.0**strength / 0.1 ** (1 - strength), 0.5**strength / 2.0 ** (1 - strength)]
    np.testing.assert_allclose(factors, expected, rtol=1e-6)


def test_channels_without_values_or_weights_stay() -> None:
    assert balance_factors(np.array([0.0, 3.0]), np.array([2.0, 0.0]), 0.5).tolist() == [1.0, 1.0]
