"""The best metric within bytes, and the front, on synthetic networks whose optimum is known."""

import importlib.util
import itertools
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from amct_lite.search.choices import choice_bytes
from amct_lite.search.frontier import build_frontier
from amct_lite.search.strategies.best_within_bytes import best_within_bytes
from amct_lite.search.strategies.front import whole_front
from amct_lite.search.strategies.protocol import Outcome
from benchmarks.synthetic_networks import SyntheticEvaluator, synthetic_network

spec = importlib.util.spec_from_file_location("smallest", Path(__file__).with_name("test_smallest.py"))
smallest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(smallest)
run = smallest.run


def searched(seed, max_trials, share=0.2, workers=1, **options):
    units, truth = synthetic_network(seed)
    evaluator = SyntheticEvaluator(units, truth, limit=0.01, seed=seed, **options)
    max_bytes = int(share * choice_bytes(units, tuple(len(unit.options) - 1 for unit in units)))
    frontier = build_frontier(units)
    strategy = best_within_bytes(units, frontier, max_bytes, max_trials, greater_is_better=True)
    run(strategy, evaluator, workers)
    return units, truth, evaluator, strategy, max_bytes


def test_the_best_within_bytes_loses_at_most_a_tenth_more_than_the_optimum_at_the_median():
    ratios = []
    for seed in range(40):
        units, truth, evaluator, strategy, max_bytes = searched(seed, 24)
        assert all(choice_bytes(units, choice) <= max_bytes for choice in strategy.trials)
        exact = build_frontier(units, truth, max_points=10**6)
        least = 1 - math.exp(-exact.errors[exact.sizes <= max_bytes].min())
        found = min(-evaluator.seen[choice].change for choice in strategy.trials)
        first = -evaluator.seen[strategy.trials[0]].change
        assert found <= first
        ratios.append(found / least)
    assert min(ratios) >= 1 - 1e-9
    assert statistics.median(ratios) <= 1.1


def test_workers_change_nothing_about_the_best_within_bytes():
    for seed in range(5):
        assert searched(seed, 24, workers=4)[3].trials == searched(seed, 24)[3].trials


@pytest.mark.parametrize("share", [1e-6, 0.04])
def test_bytes_that_nothing_fits_into_end_with_advice(share):
    *_, strategy, _ = searched(0, 24, share=share)
    assert strategy.trials == []
    assert "offer smaller options" in strategy.outlook


def test_a_metric_without_loss_ends_the_search():
    units, _truth = synthetic_network(0)
    strategy = best_within_bytes(units, build_frontier(units), 10**9, 24, greater_is_better=False)
    while wanted := strategy.ask(4):
        for choice in wanted:
            strategy.tell(choice, Outcome(1.0, True, 0.0))
    assert len(strategy.trials) <= 3
    assert strategy.outlook == ""


def front_of(seed, max_trials, workers=1):
    units, truth = synthetic_network(seed)
    evaluator = SyntheticEvaluator(units, truth, limit=0.01, seed=seed)
    strategy = whole_front(units, build_frontier(units), max_trials, greater_is_better=True)
    run(strategy, evaluator, workers)
    return units, truth, evaluator, strategy


def test_the_front_has_both_ends_and_no_wide_gap_in_bytes_and_metric_at_once():
    for seed in range(10):
        units, _truth, evaluator, strategy = front_of(seed, 24)
        points = sorted((choice_bytes(units, c), evaluator.seen[c].metric) for c in strategy.trials)
        ends = [choice_bytes(units, tuple(f(len(u.options) - 1) for u in units)) for f in (lambda _: 0, lambda n: n)]
        assert [points[0][0], points[-1][0]] == ends
        width, spread = math.log(points[-1][0] / points[0][0]), points[-1][1] - points[0][1]
        for (size, metric), (next_size, next_metric) in itertools.pairwise(points):
            assert (math.log(next_size / size) / width) * abs(next_metric - metric) / spread < 0.1


def test_the_fronts_points_are_near_the_true_front():
    excess = []
    for seed in range(10):
        units, truth, evaluator, strategy = front_of(seed, 24)
        exact = build_frontier(units, truth, max_points=10**6)
        for choice in strategy.trials[2:]:
            error = -math.log(evaluator.seen[choice].metric)
            needed = exact.sizes[exact.errors <= error * (1 + 1e-9)].min()
            excess.append(choice_bytes(units, choice) / needed)
    assert min(excess) >= 1.0
    assert np.median(excess) <= 1.03


def test_workers_change_nothing_about_the_front():
    assert front_of(1, 16, workers=4)[3].trials == front_of(1, 16)[3].trials
