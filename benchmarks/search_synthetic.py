"""Search strategies on synthetic networks whose optimum is known: bytes over the optimum, and evaluations.

100 networks of 12 layers (20 for ddpg), each with the options of 2, 4, 8 and 32 bits (`benchmarks.synthetic_networks`):
the predicted errors that strategies start from are off by a factor of about 1.6 a layer, and the test allows the metric
to fall by 0.5 to 3 %. The float model's evaluation is counted. Needs the extras `optuna` and `train`. Command, from the
checkout's root, 4 minutes of CPU time:

    python -m benchmarks.search_synthetic
"""

import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import typer

from amct_lite.search.choices import choice_bytes
from amct_lite.search.frontier import build_frontier
from amct_lite.search.objective import Objective
from amct_lite.search.strategies.binary_search import most_sensitive_first, roll_back
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.strategies.registry import DEFAULT_STRATEGY, MakeStrategy, StrategyTask, make_strategy
from amct_lite.search.strategies.replayed import ReplayedStrategy
from benchmarks.synthetic_networks import SyntheticEvaluator, allowed_fall, synthetic_network
from benchmarks.table import print_table


def from_the_smallest(task: StrategyTask) -> Strategy:
    """AMCT's bisection, but between the smallest options and float."""
    smallest, exact = (tuple((len(u.options) - 1) * end for u in task.units) for end in (0, 1))
    ranking = most_sensitive_first(task.units, smallest)
    return ReplayedStrategy(roll_back(ranking, smallest, exact, task.quantizes), task.max_trials, otherwise="more")


NETWORKS = range(100)

# Learning takes its time; and none of these was looked at when its constants were chosen.
FEWER_NETWORKS = range(80, 100)

SETTINGS: Mapping[str, tuple[MakeStrategy, int]] = {
    **{f"frontier, {trials} trials": (partial(make_strategy, DEFAULT_STRATEGY), trials) for trials in (14, 24, 100)},
    "BinarySearch": (partial(make_strategy, "BinarySearch"), 24),
    "BinarySearch from 2 bits": (from_the_smallest, 24),
    **{f"{name}, 100 trials": (partial(make_strategy, name), 100) for name in ("tpe", "nsga2")},
    "ddpg, 200 trials": (partial(make_strategy, "ddpg"), 200),
}


def searched(make: MakeStrategy, trials: int, seed: int) -> tuple[float, int]:
    """Bytes over the optimum, and evaluations, of one search."""
    units, truth = synthetic_network(seed)
    evaluator = SyntheticEvaluator(units, truth, allowed_fall(seed))
    exact = tuple(len(unit.options) - 1 for unit in units)
    frontier = build_frontier(units)
    frontier = frontier.only([frontier.choice(point) != exact for point in range(len(frontier))])
    strategy = make(StrategyTask(units, frontier, Objective(), trials, lambda choice: choice != exact))
    while wanted := strategy.ask(1):
        for choice in wanted:
            strategy.tell(choice, evaluator(choice))
    passed = [choice_bytes(units, choice) for choice in strategy.trials if evaluator.seen[choice].satisfied]
    in_float = choice_bytes(units, exact)
    return min(passed, default=in_float) / evaluator.optimum(), 1 + len(strategy.trials)


def main() -> None:
    """Print bytes and evaluations of each strategy."""
    rows = []
    for name, (make, trials) in SETTINGS.items():
        seeds = FEWER_NETWORKS if name.startswith("ddpg") else NETWORKS
        start = time.process_time()
        found = [searched(make, trials, seed) for seed in seeds]
        seconds = (time.process_time() - start) / len(seeds)
        ratios, evaluations = map(np.array, zip(*found, strict=True))
        median, most = (f"{np.quantile(ratios, share):.3f}" for share in (0.5, 0.9))
        counts = (f"{np.quantile(evaluations, share):.0f}" for share in (0.5, 0.9))
        rows.append([name, len(seeds), median, most, *counts, f"{seconds:.2f}"])
    print_table(["strategy", "networks", "bytes / optimum", "p90", "evaluations", "p90", "own seconds"], rows)


if __name__ == "__main__":
    typer.run(main)
