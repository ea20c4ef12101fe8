"""Rolling back: AMCT's bisection, the choice asked first, and the space of layers on or off."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.calibration.sweep import sweep
from amct_lite.search.choices import Option, Unit
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.frontier import build_frontier
from amct_lite.search.roll_back import RollBackProblem, roll_back_units
from amct_lite.search.strategies.asking_first import AskingFirst
from amct_lite.search.strategies.binary_search import roll_back
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.replayed import ReplayedStrategy
from amct_lite.search.strategies.smallest import smallest_that_satisfies


def run(strategy, accepts, workers=1):
    """Choices in the order of their evaluation."""
    evaluated = []
    while wanted := strategy.ask(workers):
        assert len(wanted) <= workers
        for choice in wanted:
            assert choice not in evaluated
            evaluated.append(choice)
            strategy.tell(choice, Outcome(float(accepts(choice)), accepts(choice), float(accepts(choice)) - 1))
    return evaluated


def binary_search(ranking, quantized, in_float, max_trials):
    program = roll_back(ranking, quantized, in_float, lambda choice: choice != in_float)
    return ReplayedStrategy(program, max_trials, otherwise="with more evaluations")


def prefix(ranking, count):
    return tuple(int(number in ranking[:count]) for number in range(len(ranking)))


def amcts_bisection(ranking, accepts):
    """AMCT's loop, word for word: the number of layers of the prefix that is kept in the end."""
    if accepts(prefix(ranking, 0)):
        return 0
    left, right, kept = 0, len(ranking) - 1, len(ranking)
    while left <= right:
        middle = (left + right) // 2
        if middle + 1 == len(ranking) or accepts(prefix(ranking, middle + 1)):
            kept, right = middle + 1, middle - 1
        else:
            left = middle + 1
    return kept


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_the_bisection_is_amcts_for_every_verdict_there_can_be(length):
    ranking = list(np.random.default_rng(length).permutation(length))
    for verdicts in itertools.product([False, True], repeat=length):

        def accepts(choice, verdicts=verdicts):
            return verdicts[sum(choice)]

        strategy = binary_search(ranking, (0,) * length, (1,) * length, 100)
        evaluated = run(strategy, accepts)
        accepted = [sum(choice) for choice in evaluated if accepts(choice)]
        assert (accepted[-1] if accepted else length) == amcts_bisection(ranking, accepts)
        assert (1,) * length not in evaluated, "the float model needs no evaluation"
        assert all(choice == prefix(ranking, sum(choice)) for choice in evaluated)
        assert len(evaluated) <= 1 + int(np.ceil(np.log2(length + 1)))


def test_the_bisection_keeps_to_its_budget():
    strategy = binary_search(range(64), (0,) * 64, (1,) * 64, 3)
    assert len(run(strategy, lambda choice: sum(choice) > 40)) == 3
    assert "more evaluations" in strategy.outlook


def small_units(count=6):
    return [
        Unit(f"u{n}", "layer", (f"u{n}",), (Option("int8", 100 + n, 0.1 * (n + 1)), Option("float", 400 + 4 * n, 0.0)))
        for n in range(count)
    ]


def asking_first(units, max_trials=20):
    return AskingFirst((0,) * len(units), smallest_that_satisfies(units, build_frontier(units), max_trials))


def test_the_first_choice_is_all_that_is_evaluated_where_it_satisfies():
    strategy = asking_first(small_units())
    assert run(strategy, lambda choice: True) == [(0,) * 6]
    assert list(strategy.trials) == [(0,) * 6]
    assert strategy.outlook == ""


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_look_ahead_of_the_first_choice_and_find_the_same(workers):
    def accepts(choice):
        return choice[5] == 1 or sum(choice) > 3

    alone, together = asking_first(small_units()), asking_first(small_units())
    run(alone, accepts)
    run(together, accepts, workers)
    assert together.trials == alone.trials
    assert alone.trials[0] == (0,) * 6
    assert together.num_spent == alone.num_spent


def test_what_workers_evaluated_ahead_does_not_count_where_the_first_satisfies():
    strategy = asking_first(small_units())
    assert len(run(strategy, lambda choice: True, workers=4)) == 4
    assert list(strategy.trials) == [(0,) * 6]


@pytest.fixture
def tied(tmp_path, write_network):
    """Two layers over one weight, one of its own, and a pool, planned for onnxruntime."""
    rng = np.random.default_rng(0)
    text = """agraph (float[1, 4, 8, 8] x) => (float[1, 4, 1, 1] y) {
        a = Conv (x, w) b = Relu (a) c = Conv (b, w) d = Relu (c) e = Conv (d, v)
        y = AveragePool <kernel_shape = [6, 6]> (e)
    }""".replace("Conv (", "Conv <pads = [1, 1, 1, 1]> (", 2)
    weights = {name: rng.standard_normal((4, 4, 3, 3)).astype(np.float32) for name in "wv"}
    path = write_network(text, weights)
    amct.create_quant_config(tmp_path / "config.json", path, target="onnxruntime")
    graph = amct.init(tmp_path / "config.json", path, None, tmp_path / "record.txt")
    batch = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    return graph, FactorStore(graph.model, sweep(graph.model, graph.observed_layers, [batch], 1))


def test_layers_that_share_a_weight_are_rolled_back_together(tied):
    graph, store = tied
    names = [plan.layer.name for plan in graph.plans]
    units = roll_back_units(graph.plans, store, dict.fromkeys(names, 0.1))
    assert [unit.layers for unit in units] == [tuple(names[:2]), (names[2],), (names[3],)]
    problem = RollBackProblem(graph, units, store)
    for choice in itertools.product([0, 1], repeat=3):
        assert len(problem.rolled_back(choice)) == 2 * choice[0] + choice[1] + choice[2]
        if problem.quantizes(choice):
            plans, _ = problem.plans_and_records(problem.config(choice))
            assert [plan.layer.name for plan in plans if plan.config is None] == problem.rolled_back(choice)


def test_bytes_are_what_the_layers_read_for_one_sample(tied):
    graph, store = tied
    units = roll_back_units(graph.plans, store, dict.fromkeys((plan.layer.name for plan in graph.plans), 0.1))
    weights, inputs, pooled = 4 * 4 * 9, 4 * 8 * 8, 4 * 6 * 6
    pair, _, pool = units
    assert [option.size_bytes for option in pair.options] == [weights + 4 * 4 + 2 * inputs, 4 * (weights + 2 * inputs)]
    assert [option.size_bytes for option in pool.options] == [pooled, 4 * pooled]
    assert pair.options[0].error == pytest.approx(0.2), "each of them feels the weight's error"


def test_every_choice_becomes_a_model_that_runs(tied, tmp_path):
    graph, store = tied
    units = roll_back_units(graph.plans, store, dict.fromkeys((plan.layer.name for plan in graph.plans), 0.1))
    problem = RollBackProblem(graph, units, store)
    batch = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    exact = amct.InferenceSession(graph.model.path).run(None, {"x": batch})[0]
    for number, choice in enumerate(itertools.product([0, 1], repeat=3)):
        if not problem.quantizes(choice):
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        files = problem.write(choice, folder)
        found = amct.InferenceSession(files.model).run(None, {"x": batch})[0]
        assert np.abs(found - exact).max() < 0.1 * np.abs(exact).max()
        assert not np.array_equal(found, exact)


def test_a_place_for_a_quantizer_that_only_rolling_back_makes_stays_without_one(tmp_path, write_network):
    """What calibration did not observe has no range: the tensor behind the convolution, once the Gemm is float."""
    rng = np.random.default_rng(0)
    text = """agraph (float[1, 4, 8, 8] x) => (float[1, 10] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Flatten (a)  y = Gemm <transB = 1> (b, v)
    }"""
    weights = {"w": rng.standard_normal((4, 4, 3, 3)), "v": rng.standard_normal((10, 256))}
    path = write_network(text, {name: array.astype(np.float32) for name, array in weights.items()})
    amct.create_quant_config(tmp_path / "config.json", path, target="onnxruntime")
    graph = amct.init(tmp_path / "config.json", path, None, tmp_path / "record.txt")
    batch = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    store = FactorStore(graph.model, sweep(graph.model, graph.observed_layers, [batch], 1))
    names = [plan.layer.name for plan in graph.plans]
    problem = RollBackProblem(graph, roll_back_units(graph.plans, store, dict.fromkeys(names, 0.1)), store)
    config = problem.config((0, 1))
    plans, records = problem.plans_and_records(config)
    assert replace(graph, config=config, plans=plans).tensor_plans, "there is such a place"
    assert list(records) == names[:1]
    (tmp_path / "out").mkdir()
    files = problem.write((0, 1), tmp_path / "out")
    assert amct.InferenceSession(files.model).run(None, {"x": batch})[0].shape == (1, 10)
