"""AMCT's bisection over layers that are rolled back."""

import math

from hypothesis import given
from hypothesis import strategies as st

from amct_lite.search.choices import Option, Unit
from amct_lite.search.strategies.binary_search import most_sensitive_first, plain_int8, roll_back
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.replayed import ReplayedStrategy


def searched(num_units, satisfies, ranking=None):
    """All choices that were looked at, and the strategy; 0 is quantized, 1 is float."""
    ranking = list(range(num_units)) if ranking is None else ranking
    program = roll_back(ranking, (0,) * num_units, (1,) * num_units, lambda choice: 0 in choice)
    strategy = ReplayedStrategy(program, 99, otherwise="more")
    while wanted := strategy.ask(1):
        strategy.tell(wanted[0], Outcome(0.0, satisfies(wanted[0]), 0.0))
    return strategy.trials, strategy.outlook


@given(st.integers(1, 60), st.integers(0, 60), st.randoms(use_true_random=False))
def test_it_rolls_back_the_fewest_of_the_ranking_that_satisfy(num_units, needed, rng):
    ranking = list(range(num_units))
    rng.shuffle(ranking)
    trials, outlook = searched(num_units, lambda choice: sum(choice) >= needed, ranking)
    assert len(trials) <= 1 + math.ceil(math.log2(num_units + 1))
    passed = [choice for choice in trials if sum(choice) >= needed]
    if needed < num_units:
        best = min(passed, key=sum)
        assert {number for number, option in enumerate(best) if option} == set(ranking[:needed])
        assert passed[-1] == best, "the last that satisfies is the one that is kept"
        assert outlook == ""
    else:
        assert not passed
        assert "Nothing but the float model satisfies" in outlook


@given(st.integers(1, 20), st.randoms(use_true_random=False))
def test_it_ends_and_never_looks_at_the_float_model_where_nothing_is_monotone(num_units, rng):
    trials, outlook = searched(num_units, lambda choice: rng.random() < 0.5)
    assert (1,) * num_units not in trials
    assert len(trials) == len(set(trials))
    assert outlook == "" or "float model" in outlook


def test_when_everything_quantized_satisfies_one_look_is_enough():
    assert searched(9, lambda choice: True) == ([(0,) * 9], "")


def test_the_most_sensitive_are_those_with_the_greatest_error_of_what_is_quantized():
    def unit(name, *options):
        return Unit(name, "weight", (name,), tuple(Option(*option) for option in options))

    units = [
        unit("a", ("nuq16", 1, 9.0), ("int8", 2, 0.1), ("float", 8, 0.0)),
        unit("b", ("nuq16", 1, 1.0), ("int8", 2, 0.3), ("float", 8, 0.0)),
        unit("c", ("0.25", 1, 0.2), ("0.5", 2, 0.1)),
    ]
    quantized = plain_int8(units)
    assert quantized == (1, 1, 0)
    assert most_sensitive_first(units, quantized) == [1, 2, 0]
