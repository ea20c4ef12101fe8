"""Levels chosen by the output's error: never worse than where they start, and what costs say is the table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.codebook.lookup import level_table, nearest_level_table
from amct_lite.codebook.output_levels import LevelsAndBounds, OutputResponse, levels_for_output
from amct_lite.errors import ParameterError

STEPS = np.arange(-128.0, 128.0)


def error(response, table, zero_level=0):
    values = table.astype(np.float64) - zero_level
    return values @ response.quadratic @ values - 2.0 * response.linear @ values


def random_response(seed, rank=40):
    """The response of a layer of `rank` output values to inputs on random levels."""
    rng = np.random.default_rng(seed)
    responses = rng.normal(size=(rank, 256)) * (rng.random(256) < 0.5)
    counts = np.abs(responses).sum(axis=0)
    return OutputResponse(responses.T @ responses, responses.T @ (responses @ STEPS), counts)


kept_levels = st.sets(st.integers(-128, 127), min_size=1, max_size=20).map(sorted).map(np.array)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100), levels=kept_levels)
def test_never_worse_than_the_start_and_as_many_levels(seed, levels):
    response = random_response(seed)
    found = levels_for_output(levels, response, zero_level=0)
    damped = response.damped(STEPS)
    start = error(damped, nearest_level_table(levels))
    assert error(damped, found.table()) <= start + 1e-9 * abs(start)
    assert found.levels.size == levels.size
    assert (np.diff(found.levels) > 0).all()
    assert (np.diff(found.table()) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(levels=kept_levels, data=st.data())
def test_costs_give_the_table_again(levels, data):
    places = st.sets(st.integers(-127, 127), min_size=levels.size - 1, max_size=levels.size - 1)
    bounds = np.array(sorted(data.draw(places)), np.int64)
    found = LevelsAndBounds(levels, bounds)
    assert np.array_equal(level_table(levels, found.costs()), found.table())
    assert np.array_equal(level_table(levels), LevelsAndBounds.nearest(levels).table())


def test_with_uncorrelated_responses_it_finds_what_clustering_finds():
    # Two clumps: a diagonal form is the plain weighted squared error, whose best levels are the means.
    counts = np.where((STEPS >= -40) & (STEPS < -29), 1.0, 0.0) + np.where((STEPS >= 50) & (STEPS < 61), 2.0, 0.0)
    response = OutputResponse(np.diag(counts), counts * STEPS, counts)
    found = levels_for_output(np.array([-60, 20]), response, zero_level=0)
    assert found.levels.tolist() == [-35, 55]


def test_errors_that_cancel_in_the_sum_are_used():
    # Every output sums one input on level 10 and one on level 20: one level for both will do, if twice it is 30.
    pair = np.zeros(256)
    pair[128 + 10] = pair[128 + 20] = 1.0
    response = OutputResponse(np.outer(pair, pair), pair * 30.0, pair)
    found = levels_for_output(np.array([11]), response, zero_level=0)
    assert found.levels.tolist() == [15]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100), levels=kept_levels, weight=st.floats(0.0, 10.0))
def test_a_loss_of_gain_counts_so_much_more_than_noise(seed, levels, weight):
    rng = np.random.default_rng(seed)
    responses = rng.normal(size=(30, 256))
    outputs = responses @ STEPS
    outputs, responses = outputs / np.linalg.norm(outputs), responses / np.linalg.norm(outputs)
    response = OutputResponse(responses.T @ responses, responses.T @ outputs, np.ones(256))
    table = nearest_level_table(levels)
    found = responses @ table.astype(np.float64)
    gain = found @ outputs
    noise = np.sum(np.square(found - gain * outputs))
    wanted = noise + (1.0 + weight) * (1.0 - gain) ** 2
    assert np.isclose(error(response.with_gain_kept(weight), table) + 1.0 + weight, wanted, rtol=1e-9, atol=1e-9)


def test_the_level_of_zero_stays_where_asked():
    response = random_response(3)
    levels = np.array([-90, 0, 90])
    assert 0 in levels_for_output(levels, response, zero_level=0, reserve_zero=True).levels


def test_no_data_changes_nothing():
    nothing = OutputResponse(np.zeros((256, 256)), np.zeros(256), np.zeros(256))
    assert levels_for_output(np.array([-5, 7]), nothing, zero_level=-128).levels.tolist() == [-5, 7]


def test_as_many_costs_as_levels():
    with pytest.raises(ParameterError, match="2 levels and 1 costs"):
        level_table(np.array([0, 1]), [0.0])
