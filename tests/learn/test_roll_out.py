"""Roll-outs: what the agent's actions become."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.errors import ParameterError
from amct_lite.learn.roll_out import RollOuts, option_bits
from amct_lite.search.choices import Option, Unit, choice_bytes
from amct_lite.search.frontier import build_frontier
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.strategies.task import StrategyTask


def unit(name, weights, bits=(2, 4, 8, 32)):
    names = {8: "int8", 32: "float"}
    options = [Option(names.get(b, f"codebook{b}"), weights * b // 8, 4.0**-b) for b in bits]
    return Unit(name, "weight", (name,), tuple(options), weights, weights)


UNITS = [unit("a", 400), unit("b", 4000), unit("c", 40)]


def task(max_bytes=None, units=UNITS):
    goal = Goal.SMALLEST if max_bytes is None else Goal.BEST
    return StrategyTask(units, build_frontier(units), Objective(goal, max_bytes), 99)


@given(st.integers(1110, 20_000), st.permutations(range(3)), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_whatever_the_actions_the_choice_fits_into_the_bytes(max_bytes, order, actions):
    roll_out = RollOuts(task(max_bytes), 2, 32).roll_out(order, lambda number, _: actions[number])
    assert choice_bytes(UNITS, roll_out.choice) <= max_bytes
    for number, index in enumerate(roll_out.choice):
        assert index <= min(int(actions[number] * 4), 3), "clipped to less, never to more"


@given(st.tuples(*[st.integers(0, 3)] * 3), st.permutations(range(3)))
def test_the_action_of_an_option_gives_that_option_in_any_order(choice, order):
    roll_outs = RollOuts(task(), 2, 32)
    roll_out = roll_outs.roll_out(order, lambda number, _: roll_outs.action(number, choice[number]))
    assert roll_out.choice == choice
    assert roll_out.actions.tolist() == [np.float32((choice[number] + 0.5) / 4) for number in order]


def test_weights_get_no_other_bits_than_allowed_and_activations_any():
    activation = Unit("activation t", "activation", ("a",), (Option("0.125", 1, 1.0), Option("int8", 2, 0.0)))
    units = [*UNITS, activation]
    roll_outs = RollOuts(task(units=units), 4, 8)
    ends = [roll_outs.roll_out(range(4), lambda *_, end=end: end).choice for end in (0.0, 1.0)]
    assert ends == [(1, 1, 1, 0), (2, 2, 2, 1)]
    assert roll_outs.action(0, 0) == roll_outs.action(0, 1), "the nearest that is allowed"


def test_bits_that_leave_a_unit_without_an_option_are_refused():
    with pytest.raises(ParameterError, match="leave 'd' none of its options codebook2, float"):
        RollOuts(task(units=[*UNITS, unit("d", 10, bits=(2, 32))]), 3, 8)


def test_a_name_without_bits_is_refused():
    with pytest.raises(ParameterError, match="'tiny'"):
        option_bits("tiny")


def test_a_unit_sees_which_one_it_is_and_what_was_done_before_it():
    roll_outs = RollOuts(task(max_bytes=5000), 2, 32)
    roll_out = roll_outs.roll_out([2, 0, 1], lambda *_: 0.6)
    assert roll_out.observations.shape == (3, roll_outs.state_size)
    assert roll_out.observations[:, :3].argmax(axis=1).tolist() == [2, 0, 1]
    used, left, last_action = roll_out.observations[:, -3:].T * [[17_760], [17_760], [1]]
    np.testing.assert_allclose(used, [0, 40, 440], rtol=1e-5)
    np.testing.assert_allclose(left, [5000 - 100 - 1000, 5000 - 40 - 1000, 5000 - 440], rtol=1e-5)
    np.testing.assert_allclose(last_action, [0, 0.625, 0.625])
    assert np.isfinite(roll_out.observations).all()
    assert np.abs(roll_out.observations).max() <= 1
