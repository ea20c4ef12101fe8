"""The default strategy on synthetic networks whose optimum is known."""

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.search.choices import Option, Unit, choice_bytes, choice_error, efficient_options
from amct_lite.search.frontier import Frontier, build_frontier
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.replayed import ReplayedStrategy
from amct_lite.search.strategies.smallest import bisect_frontier, refine_in_groups, smallest_that_satisfies
from benchmarks.synthetic_networks import SyntheticEvaluator, allowed_fall, synthetic_network


def run(strategy, evaluator, workers=1):
    rounds = 0
    while wanted := strategy.ask(workers):
        assert len(wanted) <= workers
        rounds += 1
        for choice in wanted:
            strategy.tell(choice, evaluator(choice))
    return rounds


def best_of(units, strategy, evaluator):
    passed = [choice for choice in strategy.trials if evaluator.seen[choice].satisfied]
    return min(passed, key=lambda choice: choice_bytes(units, choice), default=None)


def searched(seed, max_trials=14, workers=1, noise=0.0):
    units, truth = synthetic_network(seed)
    limit = allowed_fall(seed)
    evaluator = SyntheticEvaluator(units, truth, limit, noise, seed)
    strategy = smallest_that_satisfies(units, build_frontier(units), max_trials)
    rounds = run(strategy, evaluator, workers)
    return units, strategy, evaluator, rounds


def test_within_15_evaluations_the_result_is_within_2_percent_of_the_optimum_at_the_median_of_100_networks():
    ratios = []
    for seed in range(100):
        units, strategy, evaluator, _ = searched(seed)
        assert len(strategy.trials) <= 14, "the float model takes one evaluation"
        ratios.append(choice_bytes(units, best_of(units, strategy, evaluator)) / evaluator.optimum())
    assert min(ratios) >= 1.0
    assert statistics.median(ratios) <= 1.02
    assert np.quantile(ratios, 0.9) <= 1.1


@pytest.mark.parametrize("seed", range(20))
def test_workers_change_neither_the_result_nor_the_trials_it_depends_on(seed):
    one = searched(seed, max_trials=24)
    for workers in (2, 4, 7):
        many = searched(seed, max_trials=24, workers=workers)
        assert many[1].trials == one[1].trials
    assert one[3] == len(one[1].trials)


def test_four_workers_need_at_most_two_fifths_of_the_rounds():
    one = sum(searched(seed, max_trials=24)[3] for seed in range(20))
    four = sum(searched(seed, max_trials=24, workers=4)[3] for seed in range(20))
    assert four <= 0.4 * one


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 3.0))
def test_with_a_noisy_metric_only_what_passed_is_taken(seed, noise):
    units, strategy, evaluator, _ = searched(seed, noise=noise)
    best = best_of(units, strategy, evaluator)
    assert best is None or evaluator.seen[best].satisfied
    assert len(strategy.trials) == len(set(strategy.trials)) <= 14


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_bisection_returns_only_what_passed_even_when_nothing_is_monotone(verdicts):
    def look(choice):
        return Outcome(0.0, verdicts[choice[0]], 0.0)

    found = bisect_frontier(line(len(verdicts)), look)
    assert found is None or verdicts[found[0]]
    assert found is not None or not verdicts[-1]


@given(st.integers(1, 300), st.integers(0, 300))
def test_bisection_finds_the_first_of_a_monotone_line_in_a_logarithm_of_tests(length, first):
    seen = set()

    def look(choice):
        seen.add(choice)
        return Outcome(0.0, choice[0] >= first, 0.0)

    assert bisect_frontier(line(length), look) == ((first,) if first < length else None)
    assert len(seen) <= math.ceil(math.log2(length)) + 1


def line(length):
    # Sizes so far apart that no step is too small to matter.
    sizes = np.array([2**i for i in range(length)], object)
    return Frontier(np.arange(length)[:, None], sizes, -np.arange(length, dtype=float))


def test_a_test_that_nothing_passes_ends_with_advice():
    units, truth = synthetic_network(0)
    strategy = smallest_that_satisfies(units, build_frontier(units), 24)
    run(strategy, SyntheticEvaluator(units, truth, limit=-1.0))
    assert "Not even the most exact choice satisfies" in strategy.outlook
    assert tuple(len(unit.options) - 1 for unit in units) in strategy.trials


def test_a_test_that_everything_passes_ends_at_the_smallest_choice_with_nothing_left_to_gain():
    units, truth = synthetic_network(0)
    strategy = smallest_that_satisfies(units, build_frontier(units), 24)
    evaluator = SyntheticEvaluator(units, truth, limit=2.0)
    run(strategy, evaluator)
    assert best_of(units, strategy, evaluator) == (0,) * len(units)
    assert strategy.outlook == ""


def test_a_metric_where_less_is_better_is_understood():
    units, truth = synthetic_network(3)

    class Loss(SyntheticEvaluator):
        def __call__(self, choice):
            outcome = super().__call__(choice)
            return Outcome(-outcome.metric, outcome.satisfied, -outcome.change)

    results = []
    for kind in (SyntheticEvaluator, Loss):
        evaluator = kind(units, truth, 0.01)
        strategy = smallest_that_satisfies(units, build_frontier(units), 24)
        run(strategy, evaluator)
        results.append(strategy.trials)
    assert results[0] == results[1]


@pytest.mark.parametrize("worst", [float("inf"), -float("inf"), 1e30])
def test_metrics_without_bounds_do_not_confuse_it(worst):
    units, truth = synthetic_network(4)

    class Broken(SyntheticEvaluator):
        def __call__(self, choice):
            outcome = super().__call__(choice)
            return outcome if outcome.change > -0.5 else Outcome(worst, False, worst)

    evaluator = Broken(units, truth, 0.01)
    strategy = smallest_that_satisfies(units, build_frontier(units), 24)
    run(strategy, evaluator)
    best = best_of(units, strategy, evaluator)
    assert choice_bytes(units, best) <= 1.1 * evaluator.optimum()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 3.0))
def test_refinement_in_groups_returns_what_passed_and_never_grows(seed, noise):
    rng = random.Random(seed)
    units = []
    for number in range(6):
        weights, sensitivity = rng.randint(50, 2000), rng.uniform(0.2, 5)
        options = [Option(f"{bits}", weights * bits, sensitivity * 4.0 ** (2 - bits)) for bits in range(2, 6)]
        units.append(Unit(f"u{number}", "weight", (f"u{number}",), efficient_options(options)))
    seen = {}

    def look(choice, chance=0.5):
        passes = choice_error(units, choice) + rng.uniform(0, noise) < 2.0
        return Outcome(0.0, seen.setdefault(choice, passes), 0.0)

    start = (3,) * 6
    if not look(start).satisfied:
        return
    refined = refine_in_groups(units, start, look)
    assert seen[refined]
    assert choice_bytes(units, refined) <= choice_bytes(units, start)


def test_a_program_that_looks_at_several_at_once_stays_within_its_budget():
    def program(look):
        look((0,))
        look.at_all([(number,) for number in range(10)])
        return ""

    strategy = ReplayedStrategy(program, 5, otherwise="more")
    told = []
    while wanted := strategy.ask(3):
        told += wanted
        for choice in wanted:
            strategy.tell(choice, Outcome(0.0, True, 0.0))
    assert told == [(0,), (1,), (2,), (3,), (4,)]
    assert strategy.trials == told
    assert strategy.outlook == "more"


def test_workers_that_a_round_leaves_idle_look_at_what_comes_where_all_of_it_fails():
    def program(look):
        look((9,))
        look.at_all([(0,), (1,)])
        # From the metrics, which the ones behind the round are not among yet.
        worst = min(outcome.change for outcome in look.outcomes().values())
        look((2,) if worst < 0 else (3,))
        return ""

    strategy = ReplayedStrategy(program, 9, otherwise="more")
    assert strategy.ask(4) == [(9,), (0,), (1,)]
    strategy.tell((9,), Outcome(0.5, False, -0.2))
    assert strategy.ask(4) == [(0,), (1,), (2,)]
    for choice in ((0,), (1,)):
        strategy.tell(choice, Outcome(0.9, True, 0.1))
    assert strategy.ask(1) == [(2,)]
