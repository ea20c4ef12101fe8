"""What is chosen on the other half of the samples: ridges, and how far correlations are believed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.codebook.held_out import DAMPINGS, SHRINKAGES, held_out_damping, held_out_form, held_out_target
from amct_lite.codebook.second_moments import (
    LEAST_DAMPING,
    SecondMoments,
    asymmetric_target,
    damped,
    mean_of,
    scaled_inputs,
    shrunk,
)

GROUPS, ROWS, SIZE = 2, 3, 6


def moments(x, z):
    count = x.shape[1]
    return SecondMoments(
        x.transpose(0, 2, 1) @ x / count, z.transpose(0, 2, 1) @ x / count, x.mean(axis=1), z.mean(axis=1), count
    )


def halves(rng, count, drift, noise):
    """Two halves: quantized inputs are a fixed mixture of the float ones, and noise that no weight takes back."""
    mixture = np.eye(SIZE) + drift * np.random.default_rng(1).normal(size=(SIZE, SIZE))
    found = []
    for _ in range(2):
        z = rng.normal(size=(GROUPS, count, SIZE))
        found.append(moments(z @ mixture + noise * rng.normal(size=z.shape), z))
    return found


def error_on(target, weight, x, z):
    """Mean squared difference of the outputs, spelled out."""
    return np.mean(np.square(x @ target.transpose(0, 2, 1) - z @ weight.transpose(0, 2, 1)))


def test_what_both_halves_share_is_taken_back_and_what_is_chance_is_not():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(GROUPS, ROWS, SIZE))
    assert held_out_damping(weight, halves(rng, 2000, drift=0.3, noise=0.01)) == DAMPINGS[0]
    assert held_out_damping(weight, halves(rng, 8, drift=0.0, noise=0.05)) >= 10 * DAMPINGS[0]


def test_one_half_alone_keeps_the_weight_as_good_as_it_was():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(GROUPS, ROWS, SIZE))
    first, _ = halves(rng, 30, drift=0.1, noise=0.1)
    damping = held_out_damping(weight, [first])
    assert damping == DAMPINGS[-1]
    assert np.allclose(asymmetric_target(weight, first, damping), weight, atol=0.02)


def test_the_choice_lessens_the_error_on_vectors_that_neither_half_has_seen():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(GROUPS, ROWS, SIZE))
    for count in (8, 30, 300):
        errors = []
        for _ in range(20):
            folds = halves(rng, count, drift=0.03, noise=0.1)
            mixture = np.eye(SIZE) + 0.03 * np.random.default_rng(1).normal(size=(SIZE, SIZE))
            z = rng.normal(size=(GROUPS, 2000, SIZE))
            x = z @ mixture + 0.1 * rng.normal(size=z.shape)
            both = SecondMoments(*(np.mean([getattr(f, part) for f in folds], axis=0) for part in PARTS), 2 * count)
            errors.append(
                [
                    error_on(asymmetric_target(weight, both, damping), weight, x, z)
                    for damping in (held_out_damping(weight, folds), DAMPINGS[0], DAMPINGS[-1])
                ]
            )
        chosen, least, largest = np.mean(errors, axis=0)
        assert chosen <= 1.02 * min(least, largest), count


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_factors_of_inputs_are_the_least_squares_of_the_samples(seed):
    rng = np.random.default_rng(seed)
    weight, z = rng.normal(size=(1, ROWS, SIZE)), rng.normal(size=(1, 40, SIZE))
    x = z * rng.uniform(0.3, 2.0, SIZE) + 0.2 * rng.normal(size=z.shape)
    # One equation for each output value: the sum over inputs of factor * weight * input.
    columns = (x[0][:, None, :] * weight[0]).reshape(-1, SIZE)
    wanted = (z[0] @ weight[0].T).reshape(-1)
    factors = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    assert np.allclose(scaled_inputs(weight, moments(x, z), 1e-12), weight * factors)


def test_inputs_that_are_always_0_leave_the_weight():
    nothing = np.zeros((GROUPS, 20, SIZE))
    weight = np.random.default_rng(0).normal(size=(GROUPS, ROWS, SIZE))
    seen = moments(nothing, nothing)
    assert np.array_equal(scaled_inputs(weight, seen, 0.1), weight)
    assert np.array_equal(held_out_target(weight, [seen, seen]), weight)


def test_a_target_from_the_weight_is_that_without_a_start():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(GROUPS, ROWS, SIZE))
    (first, _) = halves(rng, 30, drift=0.1, noise=0.1)
    assert np.allclose(asymmetric_target(weight, first, 0.1, start=weight), asymmetric_target(weight, first, 0.1))


def test_where_some_inputs_are_noisy_two_steps_serve_unseen_vectors_better_than_one():
    rng = np.random.default_rng(0)
    size, noise = 24, np.where(np.arange(24) % 3 == 0, 1.0, 0.1)

    def sample(count):
        z = rng.normal(size=(1, count, size))
        return z + noise * rng.normal(size=z.shape), z

    weight, errors = rng.normal(size=(1, 16, size)), []
    for _ in range(20):
        folds = [moments(*sample(40)) for _ in range(2)]
        one_step = asymmetric_target(weight, mean_of(folds), held_out_damping(weight, folds))
        x, z = sample(4000)
        errors.append([error_on(target, weight, x, z) for target in (held_out_target(weight, folds), one_step, weight)])
    two_steps, one, none = np.mean(errors, axis=0)
    assert two_steps < 0.9 * one < one < none


def rounded_with_feedback(weight, quadratic, step):
    """Rounding to a uniform grid, column by column, each column's error taken back by the columns behind it."""
    left, rounded = weight.copy(), np.empty_like(weight)
    for column in range(weight.shape[1]):
        rounded[:, column] = step * np.round(left[:, column] / step)
        behind = slice(column + 1, None)
        makes_up = np.linalg.solve(quadratic[behind, behind], quadratic[behind, column])
        left[:, behind] += np.outer(left[:, column] - rounded[:, column], makes_up)
    return rounded


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("count", "alike"), [(16, 1), (16, 8), (60, 1), (3000, 1)])
def test_correlations_are_believed_as_far_as_rounding_for_the_other_half_is_best(groups, count, alike):
    rng = np.random.default_rng(count)
    mixture = np.linalg.qr(rng.normal(size=(24, 24)))[0] * np.geomspace(1.0, 0.03, 24) + 0.05 * rng.normal(size=24)
    vectors = [np.repeat(rng.normal(size=(groups, count, 24)) @ mixture.T, alike, axis=1) for _ in range(2)]
    folds = [moments(x, x) for x in vectors]
    weight, errors = rng.normal(size=(1000, 24)), []
    for share in SHRINKAGES:
        errors.append(0.0)
        for own, other in (folds, folds[::-1]):
            for group, quadratic in enumerate(damped(shrunk(own.quadratic, share), LEAST_DAMPING)):
                change = weight - rounded_with_feedback(weight, quadratic, 1e-3)
                seen = other.quadratic[group]
                errors[-1] += np.sum(change @ seen * change) / np.trace(seen)
    together = mean_of(folds).quadratic
    forms = [damped(shrunk(together, share), LEAST_DAMPING) for share in SHRINKAGES]
    (chosen,) = (number for number, form in enumerate(forms) if np.array_equal(form, held_out_form(folds)))
    assert errors[chosen] <= 1.01 * min(errors)
    assert (chosen == 0) == (count >= 60)


def test_no_correlation_is_believed_without_another_half_and_none_is_needed_without_signal():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(GROUPS, 30, SIZE))
    (form, nothing) = held_out_form([moments(x, x)]), held_out_form([moments(0 * x, 0 * x)] * 2)
    for group in range(GROUPS):
        assert np.array_equal(form[group], np.diag(np.diag(form[group])))
        assert np.array_equal(nothing[group], np.eye(SIZE))


PARTS = ("quadratic", "cross", "quantized_mean", "float_mean")
