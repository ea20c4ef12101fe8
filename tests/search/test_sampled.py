"""Strategies around a sampler."""

import pytest

from amct_lite.search.choices import Option, Unit
from amct_lite.search.frontier import build_frontier
from amct_lite.search.objective import Objective
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.sampled import FRUITLESS_ROUNDS, SampledStrategy
from amct_lite.search.strategies.task import StrategyTask, starting_choices

UNITS = [Unit("u", "weight", ("u",), tuple(Option(str(i), i + 1, 9.0 - i) for i in range(9)))]


class Scripted:
    """Samples what it is told to, the last one for ever, and remembers what it learns."""

    def __init__(self, *choices):
        self.left, self.learned = list(choices), []

    def sample(self):
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def learn(self, outcomes):
        self.learned.append(outcomes)


def task(max_trials=9, **options):
    return StrategyTask(UNITS, build_frontier(UNITS), Objective(**options), max_trials, lambda choice: choice != (8,))


def outcome(choice):
    return Outcome(float(choice[0]), True, 0.0)


def test_repeats_are_answered_from_what_was_told_and_learned_in_the_order_of_the_samples():
    sampler = Scripted((1,), (1,), (2,), (2,), (1,), (3,), (4,), (5,))
    strategy = SampledStrategy(sampler, task(), round_size=2)
    assert strategy.ask(5) == [(1,), (2,)]
    strategy.tell((2,), outcome((2,)))
    assert strategy.ask(5) == [(1,)]
    strategy.tell((1,), outcome((1,)))
    assert strategy.ask(5) == [(3,), (4,)]
    assert sampler.learned == [[((1,), outcome((1,))), ((1,), outcome((1,))), ((2,), outcome((2,)))]]
    for choice in ((4,), (3,)):
        strategy.tell(choice, outcome(choice))
    assert strategy.ask(1) == [(5,)]
    assert [choice for choice, _ in sampler.learned[1]] == [(2,), (1,), (3,), (4,)]
    assert strategy.trials == [(1,), (2,), (3,), (4,)]


def test_what_is_not_worth_a_trial_is_learned_without_an_outcome():
    sampler = Scripted((8,), (6,), (1,))
    strategy = SampledStrategy(sampler, task(max_bytes=5), round_size=1)
    assert strategy.ask(1) == [(1,)]
    strategy.tell((1,), outcome((1,)))
    assert strategy.ask(1) == []
    assert sampler.learned[0] == [((8,), None), ((6,), None), ((1,), outcome((1,)))]


def test_a_sampler_that_repeats_itself_is_left_and_the_outlook_says_so():
    sampler = Scripted((1,))
    strategy = SampledStrategy(sampler, task(), round_size=2)
    strategy.ask(2)
    strategy.tell((1,), outcome((1,)))
    assert strategy.ask(2) == []
    assert len(sampler.learned) == FRUITLESS_ROUNDS
    assert "repeats itself" in strategy.outlook


@pytest.mark.parametrize("max_trials", [1, 3, 4])
def test_the_last_round_is_as_short_as_the_budget(max_trials):
    strategy = SampledStrategy(Scripted(*((i,) for i in range(9))), task(max_trials), round_size=3)
    told = []
    while wanted := strategy.ask(2):
        told += wanted
        for choice in wanted:
            strategy.tell(choice, outcome(choice))
    assert told == [(i,) for i in range(max_trials)]
    assert "With more evaluations" in strategy.outlook


def test_a_sampler_starts_from_both_ends_of_what_the_objective_allows():
    assert starting_choices(task(), 3) == [(7,), (2,), (0,)]
    assert starting_choices(task(max_bytes=4), 3) == [(3,), (1,), (0,)]
    assert starting_choices(task(max_bytes=1), 3) == [(0,)]
    assert starting_choices(task(max_bytes=0), 3) == []
