"""What every strategy of the registry promises, for every goal it has."""

import importlib.util
import random
import re
import sys

import pytest

from amct_lite.errors import OptionalDependencyError, ParameterError
from amct_lite.search.choices import Option, Unit, choice_bytes
from amct_lite.search.frontier import build_frontier
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.result import Trial
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.registry import STRATEGIES, StrategyTask, make_strategy
from benchmarks.synthetic_networks import SyntheticEvaluator, allowed_fall, synthetic_network

PACKAGES = {"tpe": ("optuna",), "nsga2": ("optuna",), "ddpg": ("torch", "stable_baselines3")}
EXTRAS = {"tpe": "optuna", "nsga2": "optuna", "ddpg": "train"}


def marked(name, *values):
    missing = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    skip = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")
    return pytest.param(name, *values, marks=skip)


EVERY_STRATEGY = pytest.mark.parametrize("name", [marked(name) for name in STRATEGIES])
EVERY_GOAL = pytest.mark.parametrize(
    ("name", "goal"), [marked(name, goal) for name, goals in STRATEGIES.items() for goal in goals]
)


def task_of(seed, goal, max_trials=20, share=0.25):
    units, _ = synthetic_network(seed)
    exact = tuple(len(unit.options) - 1 for unit in units)
    # A quarter of float's bytes is int8 on average.
    max_bytes = int(share * choice_bytes(units, exact)) if goal is Goal.BEST else None
    return task_over(units, Objective(goal, max_bytes), max_trials)


def task_over(units, objective, max_trials):
    exact = tuple(len(unit.options) - 1 for unit in units)
    frontier = build_frontier(units)
    frontier = frontier.only([frontier.choice(point) != exact for point in range(len(frontier))])
    return StrategyTask(units, frontier, objective, max_trials, lambda choice: choice != exact)


def evaluator_of(seed, **options):
    units, truth = synthetic_network(seed)
    return SyntheticEvaluator(units, truth, options.pop("limit", allowed_fall(seed)), **options)


def run(strategy, evaluator, workers=1):
    while wanted := strategy.ask(workers):
        assert 1 <= len(wanted) <= workers
        assert len(set(wanted)) == len(wanted)
        for choice in wanted:
            strategy.tell(choice, evaluator(choice))
    return evaluator


@EVERY_GOAL
@pytest.mark.parametrize("seed", range(3))
def test_it_asks_for_each_choice_once_and_for_no_more_than_it_may(name, goal, seed):
    task = task_of(seed, goal)
    strategy = make_strategy(name, task)
    seen = run(strategy, evaluator_of(seed)).seen  # which refuses to evaluate a choice twice
    assert 1 <= len(seen) <= 20
    assert set(strategy.trials) == set(seen)
    assert len(strategy.trials) == len(seen)
    assert strategy.ask(1) == strategy.ask(5) == []
    for choice in seen:
        assert task.worth_a_trial(choice), "the float model, or larger than allowed"


@EVERY_GOAL
def test_two_runs_ask_the_same_whatever_else_draws_random_numbers(name, goal):
    def drawing(evaluator):
        def evaluate(choice):
            random.random()
            return evaluator(choice)

        return evaluate

    strategies = [make_strategy(name, task_of(1, goal)) for _ in range(2)]
    run(strategies[0], evaluator_of(1))
    run(strategies[1], drawing(evaluator_of(1)))
    assert strategies[0].trials == strategies[1].trials


@EVERY_GOAL
@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_change_nothing_of_what_is_found(name, goal, workers):
    one, many = (make_strategy(name, task_of(2, goal)) for _ in range(2))
    run(one, evaluator_of(2))
    run(many, evaluator_of(2), workers)
    assert many.trials == one.trials


@EVERY_GOAL
def test_what_is_missing_is_asked_for_again_before_anything_new(name, goal):
    rng = random.Random(0)
    strategy, evaluator = make_strategy(name, task_of(3, goal)), evaluator_of(3)
    usual = make_strategy(name, task_of(3, goal))
    run(usual, evaluator_of(3))
    missing = []
    while wanted := strategy.ask(4):
        assert list(wanted[: len(missing)]) == missing[: len(wanted)]
        # Outcomes come late and in another order; one at least comes.
        told = rng.sample(wanted, rng.randint(1, len(wanted)))
        for choice in told:
            strategy.tell(choice, evaluator(choice))
        missing = [choice for choice in wanted if choice not in told] if name in PACKAGES else []
    assert strategy.trials == usual.trials


@EVERY_STRATEGY
@pytest.mark.parametrize("seed", range(4))
def test_it_finds_a_choice_that_satisfies_and_is_smaller_than_half_of_float(name, seed):
    task, evaluator = task_of(seed, Goal.SMALLEST), evaluator_of(seed)
    strategy = make_strategy(name, task)
    run(strategy, evaluator)
    trials = [
        Trial(str(choice), (), choice_bytes(task.units, choice), seen.metric, seen.satisfied)
        for choice, seen in evaluator.seen.items()
        if choice in strategy.trials
    ]
    best = task.objective.best(trials)
    assert best is not None
    assert best.satisfied
    assert best.size_bytes >= evaluator.optimum()
    assert best.size_bytes < 0.5 * sum(unit.options[-1].size_bytes for unit in task.units)


@pytest.mark.parametrize("name", [marked(name) for name, goals in STRATEGIES.items() if Goal.BEST in goals])
@pytest.mark.parametrize("greater_is_better", [True, False])
def test_the_best_metric_within_the_bytes_is_at_least_the_frontiers(name, greater_is_better):
    sign = 1 if greater_is_better else -1
    for seed in range(3):
        task = task_of(seed, Goal.BEST, max_trials=24, share=0.15)
        task = task_over(task.units, Objective(Goal.BEST, task.objective.max_bytes, greater_is_better), 24)
        evaluator = evaluator_of(seed)

        def evaluate(choice, evaluator=evaluator):
            found = evaluator(choice)
            return Outcome(sign * found.metric, found.satisfied, sign * found.change)

        run(make_strategy(name, task), evaluate)
        fits = [point for point in range(len(task.frontier)) if task.worth_a_trial(task.frontier.choice(point))]
        predicted_best = task.frontier.choice(fits[-1])
        assert max(seen.metric for seen in evaluator.seen.values()) >= evaluator.seen[predicted_best].metric


@pytest.mark.parametrize("name", [marked(name) for name in PACKAGES])
def test_bytes_into_which_nothing_fits_end_it_with_advice(name):
    strategy = make_strategy(name, task_of(0, Goal.BEST, share=0.01))
    assert strategy.ask(1) == []
    assert "Not even the smallest choice fits into" in strategy.outlook


@pytest.mark.parametrize("name", [marked(name) for name, goals in STRATEGIES.items() if Goal.FRONT in goals])
def test_a_front_spans_the_sizes(name):
    task, evaluator = task_of(0, Goal.FRONT, max_trials=40), evaluator_of(0)
    run(make_strategy(name, task), evaluator)
    sizes = [choice_bytes(task.units, choice) for choice in evaluator.seen]
    assert min(sizes) == task.frontier.sizes[0]
    assert max(sizes) >= 4 * min(sizes)


@EVERY_STRATEGY
@pytest.mark.parametrize("limit", [-1.0, 2.0], ids=["nothing satisfies", "everything satisfies"])
def test_a_test_without_a_limit_ends_too(name, limit):
    strategy, evaluator = make_strategy(name, task_of(4, Goal.SMALLEST)), evaluator_of(4, limit=limit)
    run(strategy, evaluator)
    assert len(evaluator.seen) <= 20


@EVERY_GOAL
@pytest.mark.parametrize("worst", [float("nan"), float("inf"), -float("inf")])
def test_metrics_that_are_no_numbers_do_not_stop_it(name, goal, worst):
    strategy, evaluator = make_strategy(name, task_of(5, goal)), evaluator_of(5)

    def evaluate(choice):
        outcome = evaluator(choice)
        return outcome if outcome.satisfied else Outcome(worst, False, worst)

    run(strategy, evaluate)
    assert any(outcome.satisfied for outcome in evaluator.seen.values())


@EVERY_GOAL
def test_a_space_of_few_choices_is_no_trap(name, goal):
    options = (Option("int8", 10, 1.0), Option("float", 40, 0.0))
    units = [Unit("u", "weight", ("u",), options, 10, 10), Unit("v", "weight", ("v",), options[:1], 10, 10)]
    strategy = make_strategy(name, task_over(units, Objective(goal, 50 if goal is Goal.BEST else None), 20))
    told = []
    while wanted := strategy.ask(3):
        told += wanted
        for choice in wanted:
            strategy.tell(choice, Outcome(0.9, True, -0.1))
    assert (0, 0) in told
    assert len(told) == len(set(told)) <= 2


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_goal_that_it_does_not_have_is_refused_with_those_it_has(name):
    for goal in set(Goal) - set(STRATEGIES[name]):
        with pytest.raises(ParameterError, match=re.escape(f"has the objectives {', '.join(STRATEGIES[name])}.")):
            make_strategy(name, task_of(0, goal))


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(ParameterError, match=r"must be one of frontier, BinarySearch, .*'annealing'"):
        make_strategy("annealing", task_of(0, Goal.SMALLEST))


def test_a_function_of_ones_own_makes_the_strategy():
    task, made = task_of(0, Goal.SMALLEST), object()
    assert make_strategy(lambda given: made if given is task else None, task) is made


@pytest.mark.parametrize("name", list(EXTRAS))
def test_a_package_that_is_missing_is_named_with_its_extra(name, monkeypatch):
    for package in PACKAGES[name]:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionalDependencyError, match=re.escape(f"pip install 'amct-lite[{EXTRAS[name]}]'")):
        make_strategy(name, task_of(0, Goal.SMALLEST))


@EVERY_STRATEGY
def test_it_is_quiet(name, capfd):
    run(make_strategy(name, task_of(0, Goal.SMALLEST)), evaluator_of(0))
    assert capfd.readouterr() == ("", "")
