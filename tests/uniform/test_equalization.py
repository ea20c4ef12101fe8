"""Cross-layer equalization's numbers: ranges become equal, products stay."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amct_lite.uniform.equalization import equalization_scales, equalize, input_ranges, magnitudes, output_ranges

# Wider apart, a channel counts as missing.
RANGES = st.floats(1e-2, 1e3)


@given(arrays(np.float64, 5, elements=RANGES), arrays(np.float64, 5, elements=RANGES))
def test_both_ranges_become_their_geometric_mean(outputs: np.ndarray, inputs: np.ndarray) -> None:
    scales = equalization_scales(outputs, inputs)
    np.testing.assert_allclose(outputs / scales, np.sqrt(outputs * inputs))
    np.testing.assert_allclose(inputs * scales, np.sqrt(outputs * inputs))


def test_a_channel_that_one_layer_lacks_stays() -> None:
    assert equalization_scales(np.array([4.0, 0.0, 1e-9]), np.array([0.0, 1.0, 1.0])).tolist() == [1.0, 1.0, 1.0]


def test_no_channels_are_no_trouble() -> None:
    assert equalization_scales(np.zeros(0), np.zeros(0)).size == 0


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_a_chain_through_a_depthwise_layer_ends_with_equal_ranges_everywhere(seed: int) -> None:
    random = np.random.default_rng(seed)
    spread = np.exp(random.normal(0, 2, (2, 6)))
    first = random.normal(size=(1, 6, 3, 1)) * spread[0][:, None, None]
    depthwise = random.normal(size=(6, 1, 1, 9)) * spread[1][:, None, None, None]
    last = random.normal(size=(1, 4, 6, 1))
    weights = [magnitudes(weight) for weight in (first, depthwise, last)]
    before, after = equalize(weights, [(0, 1), (1, 2)])
    outputs = output_ranges(weights[0]) / before
    middle = output_ranges(weights[1]) * before / after
    inputs = input_ranges(weights[2]) * after
    np.testing.assert_allclose(outputs, middle, rtol=1e-3)
    np.testing.assert_allclose(middle, inputs, rtol=1e-3)


def test_ranges_run_over_groups_and_taps() -> None:
    weight = np.arange(16.0).reshape(2, 2, 2, 2) * np.array([1.0, -1.0])
    assert output_ranges(magnitudes(weight)).tolist() == [3.0, 7.0, 11.0, 15.0]
    assert input_ranges(magnitudes(weight)).tolist() == [5.0, 7.0, 13.0, 15.0]
