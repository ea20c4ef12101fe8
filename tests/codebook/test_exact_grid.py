"""codebook/exact_grid.py against brute force and against scikit-learn's KMeans."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from amct_lite.codebook.exact_grid import best_levels
from amct_lite.errors import ParameterError


def squared_error(points, weights, levels):
    return float(np.sum(weights * np.square(points[:, None] - np.asarray(levels)).min(axis=1)))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-6, 6), st.floats(0.0, 50.0)), min_size=1, max_size=9, unique_by=lambda c: c[0]),
    st.integers(1, 4),
)
def test_no_choice_of_integer_levels_is_better(cells, num_levels):
    points, weights = (np.array(column) for column in zip(*sorted(cells), strict=True))
    if not weights.any():
        with pytest.raises(ParameterError):
            best_levels(points, weights, num_levels)
        return
    found = best_levels(points, weights, num_levels)
    assert len(found.levels) <= num_levels
    assert (np.diff(found.levels) > 0).all()
    assert found.error == pytest.approx(squared_error(points, weights, found.levels))
    candidates = range(points[0], points[-1] + 1)
    best = min(
        squared_error(points, weights, levels)
        for levels in itertools.combinations(candidates, min(num_levels, len(candidates)))
    )
    assert found.error == pytest.approx(best, rel=1e-9, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-6, 6), st.floats(0.0, 50.0)), min_size=1, max_size=9, unique_by=lambda c: c[0]),
    st.integers(1, 4),
    st.data(),
)
def test_no_choice_with_the_reserved_level_is_better(cells, num_levels, data):
    points, weights = (np.array(column) for column in zip(*sorted(cells), strict=True))
    reserved = data.draw(st.sampled_from(points.tolist()))
    if not weights.any():
        with pytest.raises(ParameterError):
            best_levels(points, weights, num_levels, reserved=reserved)
        return
    found = best_levels(points, weights, num_levels, reserved=reserved)
    assert reserved in found.levels
    assert len(found.levels) <= num_levels
    assert (np.diff(found.levels) > 0).all()
    assert found.error == pytest.approx(squared_error(points, weights, found.levels))
    others = [level for level in range(points[0], points[-1] + 1) if level != reserved]
    best = min(
        squared_error(points, weights, (reserved, *levels))
        for levels in itertools.combinations(others, min(num_levels - 1, len(others)))
    )
    assert found.error == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_reserving_a_level_that_is_kept_anyway_changes_nothing():
    points, weights = np.arange(-128, 128), np.random.default_rng(4).exponential(size=256)
    free = best_levels(points, weights, 16)
    for level in free.levels:
        found = best_levels(points, weights, 16, reserved=int(level))
        assert found.error == pytest.approx(free.error, rel=1e-12)


def test_a_level_that_is_no_point_cannot_be_reserved():
    with pytest.raises(ParameterError, match="'reserved'"):
        best_levels(np.array([0, 2]), np.ones(2), 1, reserved=1)


@pytest.mark.parametrize("num_levels", [2, 5, 16, 32])
def test_kmeans_is_never_better(num_levels):
    rng = np.random.default_rng(num_levels)
    points = np.arange(-128, 128)
    weights = rng.gamma(0.5, np.exp(-np.square(points / 50.0)) * 1000 + 1)
    ours = best_levels(points, weights, num_levels)
    theirs = KMeans(num_levels, n_init=3, random_state=0).fit(points[:, None], sample_weight=weights)
    on_grid = np.unique(np.rint(theirs.cluster_centers_.ravel()))
    assert ours.error <= squared_error(points, weights, on_grid) * (1 + 1e-9)


def test_error_never_rises_with_more_levels():
    rng = np.random.default_rng(1)
    points, weights = np.arange(-128, 128), rng.exponential(size=256)
    errors = [best_levels(points, weights, k).error for k in range(1, 257, 5)]
    assert all(more <= fewer + 1e-9 for fewer, more in itertools.pairwise(errors))


def test_few_weighted_points_are_kept_as_they_are():
    weights = np.zeros(256)
    weights[[3, 77, 200]] = [1.0, 2.0, 3.0]
    found = best_levels(np.arange(-128, 128), weights, 16)
    assert found.levels.tolist() == [-125, -51, 72]
    assert found.error == 0.0


def test_all_levels_can_be_kept():
    points = np.arange(-128, 128)
    assert best_levels(points, np.ones(256), 256).levels.tolist() == points.tolist()
    assert len(best_levels(points, np.ones(256), 255).levels) == 255


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_unit_of_the_weights_does_not_matter(factor):
    points = np.arange(-128, 128)
    weights = np.random.default_rng(2).exponential(size=256)
    expected = best_levels(points, weights, 16).levels
    assert best_levels(points, weights * factor, 16).levels.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("points", "weights", "num_levels"),
    [
        ([0, 1], [1.0, -1.0], 1),
        ([0, 1], [1.0, np.nan], 1),
        ([1, 0], [1.0, 1.0], 1),
        ([0, 1], [1.0, 1.0], 0),
        ([0, 1], [0.0, 0.0], 1),
    ],
)
def test_unusable_histograms_are_refused(points, weights, num_levels):
    with pytest.raises(ParameterError):
        best_levels(np.array(points), np.array(weights), num_levels)


def test_a_full_histogram_takes_milliseconds():
    points, weights = np.arange(-128, 128), np.random.default_rng(3).exponential(size=256)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        best_levels(points, weights, 32)
        seconds.append(time.perf_counter() - start)
    # Measured 1.7 ms; the margin is for a busy machine. A loop over cells would take seconds.
    assert min(seconds) < 0.05
