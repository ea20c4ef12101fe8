"""The path over units: hulls, order, and what a greedy walk guarantees."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.search.path import Option, Unit, build_path, choice_bytes, choice_error, lower_hull

OPTIONS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda p: Option(None, False, p[0], float(p[1]))),
    min_size=1,
    max_size=7,
)
UNITS = st.lists(OPTIONS, min_size=1, max_size=4).map(
    lambda many: [Unit(f"u{i}", "weight", (f"u{i}",), lower_hull(options)) for i, options in enumerate(many)]
)


@given(OPTIONS)
def test_along_a_hull_bytes_rise_errors_fall_and_gains_shrink(options):
    hull = lower_hull(options)
    gains = []
    for smaller, larger in itertools.pairwise(hull):
        assert smaller.size_bytes < larger.size_bytes
        assert smaller.error > larger.error
        gains.append((smaller.error - larger.error) / (larger.size_bytes - smaller.size_bytes))
    assert all(a > b for a, b in itertools.pairwise(gains))


@given(OPTIONS)
def test_no_option_lies_below_its_hull(options):
    hull = lower_hull(options)
    for option in options:
        reachable = [h for h in hull if h.size_bytes <= option.size_bytes]
        assert reachable, "the smallest option is always on the hull"
        later = [h for h in hull if h.size_bytes > option.size_bytes]
        left = reachable[-1]
        if left.error <= option.error:
            continue
        assert later, "an option that is more exact than the hull's end would be on it"
        share = (option.size_bytes - left.size_bytes) / (later[0].size_bytes - left.size_bytes)
        assert option.error >= left.error + share * (later[0].error - left.error) - 1e-9


@given(UNITS)
def test_the_path_runs_from_the_smallest_to_the_most_exact_in_single_steps(units):
    path = build_path(units)
    assert path[0] == (0,) * len(units)
    assert path[-1] == tuple(len(unit.options) - 1 for unit in units)
    for before, after in itertools.pairwise(path):
        assert sum(b - a for a, b in zip(before, after, strict=True)) == 1
        assert choice_bytes(units, before) < choice_bytes(units, after)
        assert choice_error(units, before) > choice_error(units, after)


@settings(max_examples=60, deadline=None)
@given(UNITS)
def test_every_choice_on_the_path_is_the_best_for_its_bytes(units):
    every = list(itertools.product(*(range(len(unit.options)) for unit in units)))
    for choice in build_path(units):
        size, error = choice_bytes(units, choice), choice_error(units, choice)
        assert all(choice_error(units, other) >= error - 1e-9 for other in every if choice_bytes(units, other) <= size)


def test_an_option_that_is_larger_and_worse_is_never_chosen():
    hull = lower_hull([Option(None, False, 10, 1.0), Option(32, False, 12, 2.0)])
    assert [option.size_bytes for option in hull] == [10]


@pytest.mark.parametrize("units", [[]])
def test_a_path_over_nothing_has_one_empty_choice(units):
    assert build_path(units) == [()]
