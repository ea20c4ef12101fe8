"""Optuna's samplers as strategies: TPE and NSGA-II over the number of an option for each unit.

Sources: Bergstra, Bardenet, Bengio, Kegl 2011, "Algorithms for Hyper-Parameter Optimization" (TPE); Deb, Pratap,
Agarwal, Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", with constrained domination.

Options are numbered by rising bytes, so a unit is an integer. Both start from choices of the frontier, for of random
choices hardly any satisfies.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amct_lite.errors import OptionalDependencyError
from amct_lite.search.choices import Choice, choice_bytes
from amct_lite.search.objective import Goal
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.sampled import SampledStrategy
from amct_lite.search.strategies.task import StrategyTask, starting_choices

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

__all__ = ["nsga2", "tpe"]

TPE_ROUND_SIZE = 4
TPE_STARTS = 8

# Five generations within the budget, of Optuna's default population at most.
GENERATIONS = 5
LEAST_POPULATION = 8
MOST_POPULATION = 50

# The violation of a choice whose metric is no finite number.
FAR = 1e30


def tpe(task: StrategyTask) -> SampledStrategy:
    """Tree-structured Parzen estimators: fewest bytes of what satisfies, or the best metric within the bytes.

    Raises:
        OptionalDependencyError: Optuna is not installed.
    """
    sampler = _optuna().samplers.TPESampler(n_startup_trials=TPE_STARTS, seed=0)
    return SampledStrategy(_OptunaSampler(task, sampler, TPE_STARTS, both=False), task, round_size=TPE_ROUND_SIZE)


def nsga2(task: StrategyTask) -> SampledStrategy:
    """NSGA-II over bytes and metric; a round is a generation, and half of the first one lies on the frontier.

    Raises:
        OptionalDependencyError: Optuna is not installed.
    """
    population = min(max(task.max_trials // GENERATIONS, LEAST_POPULATION), MOST_POPULATION)
    sampler = _optuna().samplers.NSGAIISampler(population_size=population, seed=0)
    return SampledStrategy(_OptunaSampler(task, sampler, population // 2, both=True), task, round_size=population)


class _OptunaSampler:
    """A `Sampler` over a study that is asked and told.

    What does not satisfy, or is too large, violates a constraint, so that it is known how far away the bound is.
    """

    def __init__(self, task: StrategyTask, sampler: "BaseSampler", num_starts: int, *, both: bool) -> None:
        """Make a study.

        Args:
            task: What is chosen, and what for.
            sampler: Optuna's.
            num_starts: How many choices of the frontier come first.
            both: Whether bytes and metric are optimised, or the objective's one of them.
        """
        optuna = _optuna()
        self._task, self._trials = task, list["Trial"]()
        goal = task.objective.goal
        self._optimises_bytes, self._optimises_metric = both or goal is Goal.SMALLEST, both or goal is not Goal.SMALLEST
        self._failed = optuna.trial.TrialState.FAIL
        self._distributions = {
            str(number): optuna.distributions.IntDistribution(0, len(unit.options) - 1)
            for number, unit in enumerate(task.units)
        }
        directions = ["minimize"] * (self._optimises_bytes + self._optimises_metric)
        with _quiet():
            self._study = optuna.create_study(sampler=sampler, directions=directions)
            for choice in starting_choices(task, num_starts):
                self._study.enqueue_trial({str(number): index for number, index in enumerate(choice)})

    def sample(self) -> Choice:
        """See `Sampler`."""
        with _quiet():
            trial = self._study.ask(self._distributions)
        self._trials.append(trial)
        return tuple(trial.params[str(number)] for number in range(len(self._task.units)))

    def learn(self, outcomes: Sequence[tuple[Choice, Outcome | None]]) -> None:
        """See `Sampler`."""
        with _quiet():
            for trial, (choice, outcome) in zip(self._trials, outcomes, strict=True):
                self._learn(trial, choice, outcome)
        self._trials = []

    def _learn(self, trial: "Trial", choice: Choice, outcome: Outcome | None) -> None:
        excess = self._task.excess_bytes(choice)
        if outcome is None and excess == 0:  # nothing is quantized
            self._study.tell(trial, state=self._failed)
            return
        if self._task.objective.max_bytes is not None:
            trial.set_constraint("bytes", excess)
        elif self._task.objective.goal is Goal.SMALLEST and outcome is not None:
            trial.set_constraint("satisfied", 0.0 if outcome.satisfied else _finite(abs(outcome.change)))
        values = []
        if self._optimises_bytes:
            values.append(float(choice_bytes(self._task.units, choice)))
        if self._optimises_metric:
            # Where a constraint is violated, only the violation is compared.
            values.append(0.0 if outcome is None else self._loss(outcome))
        self._study.tell(trial, values)

    def _loss(self, outcome: Outcome) -> float:
        if self._task.objective.goal is Goal.SMALLEST:  # which does not know which way is better
            return _finite(abs(outcome.change))
        return _finite(-outcome.metric if self._task.objective.greater_is_better else outcome.metric)


def _finite(value: float) -> float:
    return FAR if math.isnan(value) else min(max(value, -FAR), FAR)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study on stderr; the setting is the process's, so it is given back."""
    logging = _optuna().logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity(max(verbosity, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise OptionalDependencyError(
            "The strategies 'tpe' and 'nsga2' need the package optuna, which is not installed.",
            remedy="pip install 'amct-lite[optuna]'",
        ) from error
    return optuna
