"""Mixed bits: the greedy choice against all choices."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amct_lite.codebook.specification import CodeForm
from amct_lite.refine.allocation import BitOption, allocate_bits

COSTS = st.lists(st.integers(0, 400), min_size=2, max_size=4)
SIZES = st.lists(st.integers(1, 9), min_size=4, max_size=4)


@st.composite
def option_sets(draw, convex):
    """Widths of up to four weights, growing in size; costs that need not fall, or convex ones."""
    found = {}
    for number in range(draw(st.integers(1, 4))):
        costs = draw(COSTS)
        if convex:
            step = draw(st.integers(1, 9))
            sizes = [step * (index + 1) for index in range(len(costs))]
            falls = sorted(set(costs[1:]), reverse=True)
            sizes, costs = sizes[: len(falls) + 1], costs[: len(falls) + 1]
            costs = [float(sum(falls[index:])) for index in range(len(costs))]
        else:
            sizes = np.cumsum(draw(SIZES)).tolist()[: len(costs)]
        found[f"w{number}"] = [
            BitOption(CodeForm(bits), size, float(cost))
            for bits, (size, cost) in enumerate(zip(sizes, costs, strict=True), 2)
        ]
    return found


def totals(options, chosen):
    picked = [next(way for way in ways if way.form == chosen[name]) for name, ways in options.items()]
    return sum(way.size_bytes for way in picked), sum(way.cost for way in picked)


def brute_force(options, max_bytes):
    every = itertools.product(*options.values())
    return min(sum(w.cost for w in ways) for ways in every if sum(w.size_bytes for w in ways) <= max_bytes)


def smallest(options):
    return sum(ways[0].size_bytes for ways in options.values())


@settings(max_examples=200, deadline=None)
@given(option_sets(convex=False), st.integers(0, 60))
def test_the_choice_fits_and_nothing_that_fits_and_lowers_the_cost_is_left_out(options, extra):
    max_bytes = smallest(options) + extra
    chosen = allocate_bits(options, max_bytes)
    size, cost = totals(options, chosen)
    assert size <= max_bytes
    assert cost >= brute_force(options, max_bytes)
    assert cost <= totals(options, {name: ways[0].form for name, ways in options.items()})[1]
    for name, ways in options.items():
        for way in ways:
            other_size, other_cost = totals(options, {**chosen, name: way.form})
            assert other_size > max_bytes or other_cost >= cost or way.form < chosen[name]


@settings(max_examples=200, deadline=None)
@given(option_sets(convex=True))
def test_along_the_hull_no_choice_is_better_than_the_greedy_one(options):
    """At every size that the greedy way passes without skipping a step it is the best of all."""
    widths = {name: ways[0].form for name, ways in options.items()}
    steps = sorted(
        ((before.cost - after.cost) / (after.size_bytes - before.size_bytes), name)
        for name, ways in options.items()
        for before, after in itertools.pairwise(ways)
    )
    assume(len({gain for gain, _ in steps}) == len(steps))  # among equals the order is free
    for _, name in reversed(steps):
        widths[name] = CodeForm(widths[name].code_bits + 1)
        size, _ = totals(options, widths)
        _, cost = totals(options, allocate_bits(options, size))
        assert cost == pytest.approx(brute_force(options, size))


def even_options(num_weights, sensitivity):
    return {
        f"w{number}": [BitOption(CodeForm(bits), bits * 1000, sensitivity[number] * 4.0**-bits) for bits in range(2, 9)]
        for number in range(num_weights)
    }


@pytest.mark.parametrize("bits", [2, 3, 3.5, 4.2, 8, 9])
def test_the_choice_is_never_worse_than_the_widest_even_width(bits):
    rng = np.random.default_rng(0)
    for _ in range(20):
        options = even_options(5, rng.uniform(0.01, 10, 5))
        max_bytes = int(bits * 5000)
        even = min(int(bits), 8)
        size, cost = totals(options, allocate_bits(options, max_bytes))
        assert size <= max_bytes
        assert cost <= totals(options, dict.fromkeys(options, CodeForm(even)))[1] * (1 + 1e-12)


def test_more_bytes_never_cost_more_on_convex_options():
    options = even_options(4, [5.0, 0.1, 1.0, 2.0])
    costs = [totals(options, allocate_bits(options, size))[1] for size in range(8000, 33000, 250)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]


def test_too_few_bytes_leave_everything_at_its_narrowest():
    options = even_options(2, [1.0, 1.0])
    assert allocate_bits(options, 0) == dict.fromkeys(options, CodeForm(2))


def test_nothing_to_choose():
    assert allocate_bits({}, 10) == {}
