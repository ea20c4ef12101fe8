"""How a search is run: budget, objective, strategy, workers; checked at the door of every verb that searches."""

from collections.abc import Sequence
from dataclasses import dataclass

from amct_lite.errors import ParameterError
from amct_lite.search.choices import Unit
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.strategies.registry import DEFAULT_STRATEGY, MakeStrategy, check_strategy
from amct_lite.workers import Jobs

__all__ = ["DEFAULT_MAX_EVALUATIONS", "SearchOptions", "search_options"]

DEFAULT_MAX_EVALUATIONS = 25


@dataclass(frozen=True)
class SearchOptions:
    """See the module.

    Attributes:
        max_evaluations: Models evaluated at most, the float one included.
        max_seconds: No trial is started after this time; None for no limit.
        goal: What is to be found.
        max_bytes: The most that the best model may take.
        equivalent_bits: The same as an average over all weights.
        greater_is_better: Whether a greater metric is a better one.
        strategy: The name of a strategy, or a function that makes one.
        jobs: Where evaluations run; None for this thread.
    """

    max_evaluations: int = DEFAULT_MAX_EVALUATIONS
    max_seconds: float | None = None
    goal: Goal = Goal.SMALLEST
    max_bytes: int | None = None
    equivalent_bits: float | None = None
    greater_is_better: bool = True
    strategy: str | MakeStrategy = DEFAULT_STRATEGY
    jobs: Jobs | None = None

    def objective_for(self, units: Sequence[Unit]) -> Objective:
        """The objective, in bytes of these units."""
        max_bytes = self.max_bytes
        if self.equivalent_bits is not None:
            num_weights = sum(unit.num_weights for unit in units)
            max_bytes = int(self.equivalent_bits * num_weights / 8)
        return Objective(self.goal, max_bytes, self.greater_is_better)


def search_options(
    verb: str,
    *,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    objective: str = "smallest",
    max_bytes: int | None = None,
    equivalent_bits: float | None = None,
    greater_is_better: bool = True,
    strategy: str | MakeStrategy | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
) -> SearchOptions:
    """Check the parameters that all verbs that search have in common.

    Args:
        verb: For messages: the function that was called.
        max_evaluations: See `SearchOptions`; None for the default.
        max_seconds: See `SearchOptions`.
        objective: The name of a goal.
        max_bytes: See `SearchOptions`.
        equivalent_bits: See `SearchOptions`.
        greater_is_better: See `SearchOptions`.
        strategy: See `SearchOptions`; None for the default.
        n_jobs: Evaluations at once; None for one, or for as many as there are workers where a backend is named.
        backend: joblib's backend.

    Raises:
        ParameterError: One of them is out of its range.
    """
    if max_evaluations is not None and (isinstance(max_evaluations, bool) or max_evaluations < 2):
        raise ParameterError(
            f"The 'max_evaluations' parameter of {verb} must be an int >= 2 (the float model takes one)."
            f" Got {max_evaluations!r} instead."
        )
    if max_seconds is not None and max_seconds <= 0:
        raise ParameterError(f"The 'max_seconds' parameter of {verb} must be > 0. Got {max_seconds!r} instead.")
    if objective not in list(Goal):
        raise ParameterError(
            f"The 'objective' parameter of {verb} must be one of {', '.join(Goal)}. Got {objective!r} instead."
        )
    if max_bytes is not None and equivalent_bits is not None:
        raise ParameterError(f"Give {verb} max_bytes or equivalent_bits, not both.")
    for name, value in (("max_bytes", max_bytes), ("equivalent_bits", equivalent_bits)):
        if value is not None and not value > 0:
            raise ParameterError(f"The {name!r} parameter of {verb} must be > 0. Got {value!r} instead.")
        if (value is not None) and objective != Goal.BEST:
            raise ParameterError(
                f"The {name!r} parameter of {verb} goes with the objective 'best'. Got {objective!r} instead."
            )
    if objective == Goal.BEST and max_bytes is None and equivalent_bits is None:
        raise ParameterError(f"The objective 'best' of {verb} needs max_bytes or equivalent_bits.")
    check_strategy(verb, DEFAULT_STRATEGY if strategy is None else strategy, Goal(objective))
    sequential = n_jobs in (None, 1) and backend is None
    return SearchOptions(
        DEFAULT_MAX_EVALUATIONS if max_evaluations is None else max_evaluations,
        max_seconds,
        Goal(objective),
        max_bytes,
        equivalent_bits,
        greater_is_better,
        DEFAULT_STRATEGY if strategy is None else strategy,
        None if sequential else Jobs(-1 if n_jobs is None else n_jobs, backend or "loky"),
    )
