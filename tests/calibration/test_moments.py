"""calibration/moments.py: sums per channel."""

import numpy as np
import pytest

from amct_lite.calibration.moments import ChannelMoments
from amct_lite.errors import ParameterError


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_moments_are_those_of_all_other_axes(axis, dtype):
    values = (np.random.default_rng(0).normal(size=(6, 5, 4, 3)) * 10).astype(dtype)
    moments = ChannelMoments(axis)
    moments.update(values)
    channels = np.moveaxis(values.astype(np.float64), axis, 0).reshape(values.shape[axis], -1)
    assert moments.count == channels.shape[1]
    # float32 rows are summed in float32 before they are added up in float64.
    np.testing.assert_allclose(moments.mean, channels.mean(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.mean_square, np.square(channels).mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 70_000), (70_000, 3, 2), (2, 700, 200)])
def test_large_batches_are_added_in_pieces_that_hold_every_value_once(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    moments = ChannelMoments(1)
    pieces = [piece.ravel().copy() for piece in moments.adding(values)]
    assert len(pieces) > 1
    np.testing.assert_array_equal(np.sort(np.concatenate(pieces)), np.sort(values.ravel()))
    np.testing.assert_allclose(moments.mean_square, np.square(values.astype(np.float64)).mean(axis=(0, 2)), rtol=1e-5)


def test_squares_beyond_float32_are_summed_in_float64():
    moments = ChannelMoments(1)
    moments.update(np.full((1, 2, 100), 1e30, np.float32))
    np.testing.assert_allclose(moments.mean_square, [1e60, 1e60], rtol=1e-6)


def test_batches_and_merged_shards_add_up():
    values = np.random.default_rng(1).normal(size=(40, 8, 100, 100)).astype(np.float32)
    whole = ChannelMoments(1)
    whole.update(values)
    merged = ChannelMoments(1)
    merged.merge(ChannelMoments(1))
    for part in np.array_split(values, 7):
        shard = ChannelMoments(1)
        shard.update(part)
        merged.merge(shard)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.sums, whole.sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.square_sums, whole.square_sums, rtol=1e-12)


def test_state_goes_through_arrays():
    moments = ChannelMoments(-1)
    moments.update(np.arange(6.0).reshape(2, 3))
    restored = ChannelMoments.from_arrays(moments.to_arrays())
    assert (restored.channel_axis, restored.count) == (-1, 2)
    np.testing.assert_array_equal(restored.mean_square, moments.mean_square)
    restored.update(np.ones((1, 3)))
    assert moments.count == 2


def test_an_empty_batch_changes_nothing():
    moments = ChannelMoments(1)
    assert moments.mean_square.size == 0
    moments.update(np.zeros((0, 3)))
    assert moments.count == 0
    assert moments.mean_square.tolist() == [0.0, 0.0, 0.0]


def test_shapes_that_do_not_fit_are_refused():
    moments = ChannelMoments(1)
    moments.update(np.zeros((2, 3)))
    with pytest.raises(ParameterError, match="number of channels"):
        moments.update(np.zeros((2, 4)))
    with pytest.raises(ParameterError, match="axis 1"):
        moments.update(np.zeros(3))
    with pytest.raises(ParameterError, match="arrays"):
        ChannelMoments.from_arrays({})
