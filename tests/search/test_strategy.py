"""Bisection and refinement on synthetic units with known optima."""

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.search.path import Option, Unit, build_path, choice_bytes, choice_error, lower_hull
from amct_lite.search.strategy import bisect_path, refine


def random_units(seed, count=6, choices=4):
    rng = random.Random(seed)
    units = []
    for number in range(count):
        weights, sensitivity = rng.randint(50, 2000), rng.uniform(0.2, 5)
        options = [
            Option(2**bits, False, weights * bits, sensitivity * 4.0 ** (2 - bits)) for bits in range(2, 2 + choices)
        ]
        units.append(Unit(f"u{number}", "weight", (f"u{number}",), lower_hull(options)))
    return units


class Counting:
    """A test that counts how often it is asked about something new."""

    def __init__(self, rule):
        self.rule, self.seen = rule, {}

    def __call__(self, choice):
        return self.seen.setdefault(choice, self.rule(choice))


@given(st.integers(1, 300), st.integers(0, 300))
def test_bisection_finds_the_first_of_a_monotone_path_in_a_logarithm_of_tests(length, first):
    path = [(i,) for i in range(length)]
    test = Counting(lambda choice: choice[0] >= first)
    found = bisect_path(path, test)
    assert found == ((first,) if first < length else None)
    assert len(test.seen) <= math.ceil(math.log2(length)) + 2


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_bisection_returns_only_what_passed_even_when_nothing_is_monotone(verdicts):
    found = bisect_path([(i,) for i in range(len(verdicts))], lambda choice: verdicts[choice[0]])
    assert found is None or verdicts[found[0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 3.0))
def test_refinement_returns_what_passed_and_never_grows(seed, noise):
    units, rng = random_units(seed), random.Random(seed)
    test = Counting(lambda choice: choice_error(units, choice) + rng.uniform(0, noise) < 2.0)
    start = build_path(units)[-1]
    if not test(start):
        return
    refined = refine(units, start, test)
    assert test.seen[refined]
    assert choice_bytes(units, refined) <= choice_bytes(units, start)


def test_on_random_problems_the_result_is_near_the_optimum_within_25_tests():
    ratios = []
    for seed in range(40):
        units = random_units(seed)
        # The truth differs from the prediction: some layers are up to three times as sensitive.
        rng = random.Random(seed + 1)
        factors = [rng.uniform(0.5, 3) for _ in units]

        def true_error(choice, units=units, factors=factors):
            return sum(f * u.options[i].error for f, u, i in zip(factors, units, choice, strict=True))

        limit = 0.3 * true_error((0,) * len(units))
        test = Counting(lambda choice, limit=limit, error=true_error: error(choice) <= limit)
        found = refine(units, bisect_path(build_path(units), test), test)
        assert len(test.seen) <= 25
        every = itertools.product(*(range(len(unit.options)) for unit in units))
        optimum = min(choice_bytes(units, choice) for choice in every if true_error(choice) <= limit)
        ratios.append(choice_bytes(units, found) / optimum)
    assert statistics.median(ratios) <= 1.05


def test_nothing_is_refined_where_everything_is_smallest_already():
    units = random_units(0)
    smallest = (0,) * len(units)
    assert refine(units, smallest, pytest.fail) == smallest
