"""codebook/activation_nuq.py: levels of activations by how often they occur."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amct_lite.calibration.histogram import Histogram
from amct_lite.codebook.activation_nuq import cluster_activation, ends_at_zero, level_histogram
from amct_lite.codebook.lookup import nearest_level_table
from amct_lite.errors import ParameterError
from amct_lite.types import ClipRange, Grid
from amct_lite.uniform.grid import grid_from_range, quantize


def snapshot_of(values):
    histogram = Histogram()
    histogram.update(values)
    return histogram.snapshot()


@given(
    arrays(np.float32, st.integers(1, 50), elements=st.floats(-100, 100, width=32)),
    st.floats(2.0**-7, 10.0, width=32),
    st.integers(-128, 127),
)
def test_counts_are_conserved(values, scale, offset):
    counts = level_histogram(snapshot_of(values), Grid(scale, offset))
    assert counts.shape == (256,)
    assert (counts >= -1e-9).all()
    assert counts.sum() == pytest.approx(values.size)


@pytest.mark.parametrize("with_offset", [True, False])
def test_histogram_is_close_to_that_of_the_quantized_values(with_offset):
    values = np.maximum(np.random.default_rng(0).normal(0.5, 1.0, 200_000), 0).astype(np.float32)
    grid = grid_from_range(ClipRange(0.0, 3.0), with_offset=with_offset)
    counts = level_histogram(snapshot_of(values), grid)
    exact = np.bincount(quantize(values, grid).astype(int) + 128, minlength=256)
    assert np.abs(counts - exact).sum() < 0.02 * values.size
    assert counts[grid.offset + 128] == pytest.approx(exact[grid.offset + 128], rel=0.01)
    assert counts[-1] == pytest.approx(exact[-1], rel=0.05)


def test_data_of_zeros_only_counts_at_the_level_of_zero():
    counts = level_histogram(snapshot_of(np.zeros(7)), Grid(1.0, -128))
    assert counts[0] == 7.0
    assert counts.sum() == 7.0


def test_clustering_beats_even_steps():
    values = np.random.default_rng(1).exponential(size=100_000).astype(np.float32)
    grid = grid_from_range(ClipRange(0.0, float(values.max())), with_offset=True)
    counts = level_histogram(snapshot_of(values), grid)
    levels = cluster_activation(counts, 16)
    assert len(levels) == 16

    def error(kept):
        return np.sum(counts * np.square(nearest_level_table(kept) - np.arange(-128, 128)))

    assert error(levels) < 0.5 * error(np.arange(-120, 128, 16))


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("num_levels", [2, 8, 64])
def test_a_reserved_zero_stays_zero(num_levels, with_offset):
    values = np.maximum(np.random.default_rng(2).normal(0.0, 1.0, 20_000), 0).astype(np.float32)
    grid = grid_from_range(ClipRange(0.0, 2.0), with_offset=with_offset)
    levels = cluster_activation(level_histogram(snapshot_of(values), grid), num_levels, zero_level=grid.offset)
    assert nearest_level_table(levels)[grid.offset + 128] == grid.offset


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 3.0], True), ([-2.0, 0.0], True), ([0.25, 3.0], False), ([-1.0, 0.0, 1.0], False), ([0.0], True)],
)
def test_values_that_reach_zero_and_stay_on_one_side_end_there(values, expected):
    assert ends_at_zero(snapshot_of(np.float32(values))) is expected


@pytest.mark.parametrize("counts", [np.ones(255), np.ones((2, 128)), np.zeros(256)])
def test_unusable_counts_are_refused(counts):
    with pytest.raises(ParameterError):
        cluster_activation(counts, 16)
