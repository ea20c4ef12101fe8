"""codebook/weight_nuq.py: the best levels for real weights."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amct_lite.codebook.assignment import quantize_to_levels
from amct_lite.codebook.lookup import nearest_level_table
from amct_lite.codebook.weight_nuq import cluster_weight
from amct_lite.errors import ParameterError
from amct_lite.uniform.arq import dequantize_weight, quantize_weight, weight_scales

weights = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)),
    elements=st.floats(-4.0, 4.0, width=32),
)


def real_error(weight, result, axis, importance=1.0):
    restored = dequantize_weight(result.quantized, result.scales, axis=axis).astype(np.float64)
    return float(np.sum(np.square(weight - restored) * importance))


@settings(max_examples=60, deadline=None)
@given(weights, st.sampled_from([None, 0, 1, -1]), st.integers(2, 6))
def test_error_is_real_and_more_iterations_or_steps_never_raise_it(weight, axis, num_steps):
    scales = weight_scales(weight, axis=axis)
    last = np.inf
    for iterations in (0, 1, 2, 5):
        result = cluster_weight(weight, scales, axis=axis, num_steps=num_steps, num_of_iteration=iterations)
        assert result.quantized.shape == weight.shape
        assert result.quantized.dtype == np.int8
        assert result.levels == tuple(np.unique(result.quantized).tolist())
        assert len(result.levels) <= num_steps
        assert result.error == pytest.approx(real_error(weight, result, axis), rel=1e-4, abs=1e-9)
        again = quantize_to_levels(weight, result.scales, result.levels, axis=axis)
        np.testing.assert_array_equal(again, result.quantized)
        assert result.error <= last
        last = result.error
    fewer, more = (
        cluster_weight(weight, scales, axis=axis, num_steps=k, num_of_iteration=0).error
        for k in (num_steps, num_steps + 1)
    )
    assert more <= fewer * (1 + 1e-4) + 1e-9


@pytest.mark.parametrize("with_importance", [False, True])
def test_no_choice_of_levels_is_better_for_the_given_scales(with_importance):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 12)).astype(np.float32)
    importance = rng.exponential(size=(1, 12)) if with_importance else None
    counted = importance if with_importance else 1.0
    scales = weight_scales(weight, axis=0, num_bits=4)
    result = cluster_weight(weight, scales, axis=0, num_steps=3, num_of_iteration=0, num_bits=4, importance=importance)
    steps = weight.astype(np.float64) / scales[:, None]
    best = min(
        float(np.sum(np.square(np.abs(steps[..., None] - levels).min(axis=-1) * scales[:, None]) * counted))
        for levels in itertools.combinations(range(-8, 8), 3)
    )
    assert result.error == pytest.approx(best, rel=1e-5)


def test_clustering_after_rounding_is_never_better():
    rng = np.random.default_rng(1)
    weight = rng.standard_t(4, size=(16, 300)).astype(np.float32)
    scales = weight_scales(weight, axis=0)
    ours = cluster_weight(weight, scales, axis=0, num_steps=16, num_of_iteration=0)
    rounded = quantize_weight(weight, scales, axis=0).astype(int)
    table = nearest_level_table(np.array(ours.levels))
    theirs = dequantize_weight(table[rounded + 128].astype(np.int8), scales, axis=0)
    assert ours.error <= np.sum(np.square(weight - theirs))


def test_importance_moves_error_to_where_it_counts_less():
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(8, 64)).astype(np.float32)
    importance = np.where(np.arange(64) < 32, 100.0, 1.0)[None, :]
    scales = weight_scales(weight, axis=0)
    plain = cluster_weight(weight, scales, axis=0, num_steps=8)
    aware = cluster_weight(weight, scales, axis=0, num_steps=8, importance=importance)
    assert aware.error < real_error(weight, plain, 0, importance)
    assert aware.error == pytest.approx(real_error(weight, aware, 0, importance), rel=1e-4)


def test_importance_of_zeros_counts_all_alike():
    weight = np.random.default_rng(3).normal(size=(4, 50)).astype(np.float32)
    scales = weight_scales(weight, axis=None)
    plain = cluster_weight(weight, scales, axis=None, num_steps=4)
    zeros = cluster_weight(weight, scales, axis=None, num_steps=4, importance=np.zeros((1, 1)))
    np.testing.assert_array_equal(plain.quantized, zeros.quantized)


def test_channel_of_zeros_stays_zero():
    weight = np.random.default_rng(4).normal(size=(4, 200)).astype(np.float32)
    weight[1] = 0.0
    scales = weight_scales(weight, axis=0)
    result = cluster_weight(weight, scales, axis=0, num_steps=16, num_of_iteration=5)
    assert not dequantize_weight(result.quantized, result.scales, axis=0)[1].any()


def test_two_runs_are_identical_and_the_input_is_untouched():
    weight = np.random.default_rng(5).normal(size=(6, 7, 3, 3)).astype(np.float32)
    scales = weight_scales(weight, axis=1)
    before = weight.copy(), scales.copy()
    first, second = (cluster_weight(weight, scales, axis=1, num_steps=16) for _ in range(2))
    np.testing.assert_array_equal(first.quantized, second.quantized)
    assert first.levels == second.levels
    np.testing.assert_array_equal(weight, before[0])
    np.testing.assert_array_equal(scales, before[1])


@pytest.mark.parametrize(
    "bad",
    [
        {"num_steps": 1},
        {"num_steps": 257},
        {"num_of_iteration": 6},
        {"num_of_iteration": -1},
        {"num_bits": 9},
    ],
)
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        cluster_weight(np.ones((2, 2), np.float32), np.ones(2, np.float32), **{"axis": 0, "num_steps": 16, **bad})


@pytest.mark.parametrize("levels", [[], [3, 3], [4, 3], [-129, 0], [0, 128]])
def test_levels_that_do_not_ascend_within_the_grid_are_refused(levels):
    with pytest.raises(ParameterError, match="Levels"):
        quantize_to_levels(np.ones(3), np.ones(1, np.float32), levels, axis=None)


def test_unusable_values_are_refused():
    weight, scales = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    for broken in (
        {"weight": weight * np.nan},
        {"scales": scales * 0},
        {"scales": np.ones(3, np.float32)},
        {"importance": -weight},
    ):
        with pytest.raises(ParameterError):
            cluster_weight(**{"weight": weight, "scales": scales, "axis": 0, "num_steps": 16, **broken})
