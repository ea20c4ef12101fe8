"""The frontier: what it promises, against every choice there is."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.search.choices import Option, Unit, choice_bytes, choice_error, efficient_options
from amct_lite.search.frontier import build_frontier

OPTIONS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 40)).map(lambda p: Option(f"{p}", p[0], float(p[1]))),
    min_size=1,
    max_size=7,
)
UNITS = st.lists(OPTIONS, min_size=1, max_size=4).map(
    lambda many: [Unit(f"u{i}", "weight", (f"u{i}",), efficient_options(options)) for i, options in enumerate(many)]
)


def every_choice(units):
    return itertools.product(*(range(len(unit.options)) for unit in units))


@given(OPTIONS)
def test_efficient_options_are_those_that_nothing_beats(options):
    found = efficient_options(options)
    for smaller, larger in itertools.pairwise(found):
        assert smaller.size_bytes < larger.size_bytes
        assert smaller.error > larger.error
    for option in options:
        assert any(kept.size_bytes <= option.size_bytes and kept.error <= option.error for kept in found)


@settings(deadline=None)
@given(UNITS)
def test_the_frontier_has_the_least_error_for_every_number_of_bytes(units):
    frontier = build_frontier(units)
    for point in range(len(frontier)):
        choice = frontier.choice(point)
        assert frontier.sizes[point] == choice_bytes(units, choice)
        assert frontier.errors[point] == choice_error(units, choice)
    assert (np.diff(frontier.sizes) > 0).all()
    assert (np.diff(frontier.errors) < 0).all()
    for choice in every_choice(units):
        fits = frontier.sizes <= choice_bytes(units, choice)
        assert frontier.errors[fits].min() <= choice_error(units, choice)


@settings(deadline=None)
@given(UNITS, st.integers(2, 12))
def test_a_thinned_frontier_keeps_both_ends_and_its_order(units, max_points):
    whole, thin = build_frontier(units), build_frontier(units, max_points=max_points)
    assert len(thin) <= max_points + 1
    assert thin.choice(0) == whole.choice(0)
    assert thin.sizes[-1] == whole.sizes[-1]
    assert (np.diff(thin.sizes) > 0).all()
    assert (np.diff(thin.errors) < 0).all()


def test_errors_of_its_own_replace_those_of_the_options():
    units = [Unit("u", "weight", ("u",), (Option("a", 1, 5.0), Option("b", 2, 1.0)))] * 2
    frontier = build_frontier(units, [np.array([5.0, 1.0]), np.array([9.0, 0.0])])
    assert [frontier.choice(point) for point in range(len(frontier))] == [(0, 0), (0, 1), (1, 1)]


def test_a_frontier_over_nothing_has_one_empty_choice():
    assert build_frontier([]).choice(0) == ()


def test_a_hundred_units_with_ten_options_are_thinned_to_within_a_few_thousandths_of_the_bytes():
    rng = np.random.default_rng(0)
    units = []
    for number in range(100):
        sizes, error = np.cumsum(rng.integers(10, 5000, 10)), rng.uniform(1, 100)
        options = tuple(Option(f"{i}", int(size), float(error * 4.0**-i)) for i, size in enumerate(sizes))
        units.append(Unit(f"u{number}", "weight", (f"u{number}",), options))
    thin, fine = build_frontier(units), build_frontier(units, max_points=20_000)
    for error in np.quantile(fine.errors, [0.1, 0.3, 0.5, 0.7, 0.9]):
        needed = [frontier.sizes[frontier.errors <= error].min() for frontier in (thin, fine)]
        assert needed[0] <= 1.003 * needed[1]
