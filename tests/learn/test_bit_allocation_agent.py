"""The agent that allocates bits."""

import random
import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.errors import ParameterError
from amct_lite.learn.bit_allocation_agent import BitAllocation, ddpg
from amct_lite.learn.reward import Reward
from amct_lite.search.choices import choice_bytes
from amct_lite.search.frontier import build_frontier
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.task import StrategyTask, starting_choices
from benchmarks.synthetic_networks import SyntheticEvaluator, allowed_fall, synthetic_network

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")


def searched(seed, parameters=None, max_trials=20, objective=None):
    units, truth = synthetic_network(seed)
    evaluator = SyntheticEvaluator(units, truth, allowed_fall(seed))
    task = StrategyTask(units, build_frontier(units), objective or Objective(), max_trials)
    strategy = ddpg(task, parameters)
    while wanted := strategy.ask(1):
        strategy.tell(wanted[0], evaluator(wanted[0]))
    return task, evaluator, strategy


def test_the_process_keeps_its_random_numbers_and_threads():
    def drawn():
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002

    def seed():
        random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002

    threads = torch.get_num_threads()
    seed()
    expected = drawn()
    seed()
    searched(0)
    assert drawn() == expected
    assert torch.get_num_threads() == threads


def test_parameters_change_what_is_asked():
    usual = searched(0)[2].trials
    assert searched(0, BitAllocation(seed=1))[2].trials != usual
    assert searched(0, BitAllocation(enbl_random_layers=False))[2].trials != usual
    assert len(searched(0, BitAllocation(nb_rlouts=7))[2].trials) == 7
    trials = searched(0, BitAllocation(w_bit_min=4, w_bit_max=8))[2].trials
    assert {index for choice in trials for index in choice} == {1, 2}


def test_no_roll_outs_are_refused():
    with pytest.raises(ParameterError, match="'nb_rlouts'"):
        BitAllocation(nb_rlouts=0)


@pytest.mark.slow
def test_the_agent_learns_more_than_it_was_given():
    given_ratios, learned = [], []
    for seed in range(50, 54):
        task, evaluator, _ = searched(seed, max_trials=120)

        def smallest(choices, task=task, evaluator=evaluator):
            return min(choice_bytes(task.units, c) for c in choices if evaluator.seen[c].satisfied)

        given_ratios.append(smallest(starting_choices(task, 15)) / evaluator.optimum())
        learned.append(smallest(evaluator.seen) / evaluator.optimum())
    assert statistics.mean(learned) - 1 <= 0.6 * (statistics.mean(given_ratios) - 1)


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5), st.integers(0, 5), st.integers(0, 5))
def test_smaller_is_better_of_what_satisfies_and_nearer_of_what_does_not(fall, other, index, larger):
    units, _ = synthetic_network(0)
    choices = [(min(i, 3),) * 12 for i in (0, 1, 2, 3)]
    seen = [(choice, Outcome(0.99, True, -0.01)) for choice in choices]
    seen += [(choice, Outcome(0.9, False, -0.1)) for choice in choices]
    reward = Reward(StrategyTask(units, build_frontier(units), Objective(), 9), seen)
    small, large = (choices[min(i, 3)] for i in sorted((index, larger)))
    passes = Outcome(1 - fall, True, -fall)
    assert reward(small, passes) >= reward(large, passes)
    near, far = (Outcome(1 - f, False, -f) for f in sorted((fall, other)))
    assert reward(small, near) >= reward(small, far)
    assert reward(small, passes) >= reward(small, Outcome(1 - fall, False, -fall))


@pytest.mark.parametrize("sign", [1, -1])
def test_within_the_bytes_the_better_metric_is_the_better_reward(sign):
    units, _ = synthetic_network(0)
    task = StrategyTask(units, build_frontier(units), Objective(Goal.BEST, 10**9, sign > 0), 9)
    outcomes = [Outcome(sign * (1 - fall), False, -sign * fall) for fall in (0.5, 0.1, 0.01, 0.001, -0.1)]
    reward = Reward(task, [((0,) * 12, outcome) for outcome in outcomes])
    rewards = [reward((0,) * 12, outcome) for outcome in outcomes]
    assert rewards == sorted(rewards)
    assert len(set(rewards)) == len(rewards)


def test_pytorch_is_not_imported_before_the_strategy_is_asked_for():
    code = "import sys, amct_lite.search.auto_nuq; assert not {'torch', 'optuna', 'gymnasium'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
