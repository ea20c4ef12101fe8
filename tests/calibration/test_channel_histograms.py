"""Histograms by channel: what they say of divided values, and that the state depends on the data alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.calibration.channel_histograms import ChannelHistograms
from amct_lite.calibration.histogram import Histogram
from amct_lite.errors import ParameterError


def spread_values(seed: int, channels: int = 5, rows: int = 12) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, channels, 4, 3)) * np.exp(random.normal(0, 4, (channels, 1, 1)))
    values[values < -values.std()] = 0.0
    return values.astype(np.float32)


def observed(*batches: np.ndarray) -> ChannelHistograms:
    found = ChannelHistograms(channel_axis=1)
    for batch in batches:
        found.update(batch)
    return found


def counts_and_zeros(channels: ChannelHistograms) -> list[bytes]:
    return [channels.to_arrays()[name].tobytes() for name in ("exponents", "zeros", "counts")]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 11))
def test_batches_their_order_and_merging_do_not_matter(seed: int, cut: int) -> None:
    values = spread_values(seed)
    whole = observed(values)
    assert counts_and_zeros(observed(values[cut:], values[:cut])) == counts_and_zeros(whole)
    merged = observed(values[:cut])
    merged.merge(observed(values[cut:]))
    assert counts_and_zeros(merged) == counts_and_zeros(whole)
    np.testing.assert_array_equal(merged.extremes, whole.extremes)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_divided_values_are_where_a_histogram_of_them_finds_them(seed: int) -> None:
    values = spread_values(seed)
    factors = np.exp(np.random.default_rng(seed + 1).normal(0, 3, 5))
    divided = values / factors[:, None, None]
    found = observed(values).divided(factors).snapshot()
    exact = Histogram()
    exact.update(divided)
    assert (found.minimum, found.maximum) == (divided.min(), divided.max())
    assert (found.zeros, found.total) == (exact.zeros, values.size)
    # No value may have moved further than the widest bin.
    positions = np.repeat(found.centres, found.counts)
    reference = np.sort(divided[divided != 0.0], axis=None)
    assert np.abs(positions - reference).max() <= 2.0 * found.width
    assert found.width <= np.abs(divided).max() / 500


def test_channel_maxima_are_exact() -> None:
    values = spread_values(3)
    np.testing.assert_array_equal(observed(values[:5], values[5:]).maxima, np.abs(values).max(axis=(0, 2, 3)))


def test_extremes_of_each_batch_are_divided_too() -> None:
    channels = observed(np.array([[1.0, -8.0]], np.float32), np.array([[-2.0, 4.0]], np.float32))
    assert channels.divided_batch_ranges(np.array([1.0, 4.0])) == [(-2.0, 1.0), (-2.0, 1.0)]


def test_the_state_comes_back_from_arrays() -> None:
    channels = observed(spread_values(1), spread_values(2))
    back = ChannelHistograms.from_arrays(channels.to_arrays())
    assert counts_and_zeros(back) == counts_and_zeros(channels)
    np.testing.assert_array_equal(back.extremes, channels.extremes)
    with pytest.raises(ParameterError, match="channel histograms"):
        ChannelHistograms.from_arrays({})


def test_another_number_of_channels_is_refused() -> None:
    channels = observed(np.ones((2, 3), np.float32))
    with pytest.raises(ParameterError, match="Got 4 after 3"):
        channels.update(np.ones((2, 4), np.float32))


def test_without_values_there_is_an_empty_histogram() -> None:
    assert ChannelHistograms(1).divided(np.ones(0)).total == 0
    assert observed(np.zeros((2, 3), np.float32)).divided(np.ones(3)).zeros == 6
