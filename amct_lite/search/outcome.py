"""The end of a search: the best choice becomes files, and everything that was seen becomes a result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amct_lite.export.save import fullest_save_type, possible_files, save_quantized
from amct_lite.export.summary import Summary, summarise
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.config import QuantConfig
from amct_lite.files.config_file import write_config
from amct_lite.files.json_document import dump_json
from amct_lite.files.record import write_record
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.choices import Choice
from amct_lite.search.config_problem import ConfigProblem
from amct_lite.search.frontier import Frontier
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.result import SearchResult, Stop, Trial, pareto_front
from amct_lite.search.search_files import SearchFiles
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.trials import TrialRunner

__all__ = ["Describe", "SearchEnd", "describe_nuq", "save_float_outcome", "save_outcome"]


@dataclass(frozen=True)
class SearchEnd:
    """A search when it has ended.

    Attributes:
        problem: What was searched over.
        objective: What was to be found.
        strategy: What searched.
        runner: What evaluated.
        stop: Why it ended.
        frontier: Its most exact choice is saved where no choice was evaluated at all.
    """

    problem: ConfigProblem
    objective: Objective
    strategy: Strategy
    runner: TrialRunner
    stop: Stop
    frontier: Frontier

    @property
    def original(self) -> Trial:
        """The float model's trial."""
        assert self.runner.original is not None
        return self.runner.original

    @property
    def by_choice(self) -> dict[Choice, Trial]:
        """The trials that count, in order."""
        known = self.runner.trials
        return {choice: known[choice] for choice in self.strategy.trials if choice in known}

    @property
    def best(self) -> Trial | None:
        """The trial that the objective is after; None where there is none."""
        return self.objective.best(list(self.by_choice.values()))


Describe = Callable[[SearchResult], str]
"""Tells an outcome in words."""


def save_outcome(end: SearchEnd, files: SearchFiles, describe: Describe) -> SearchResult:
    """Save the best choice, or the best effort marked as such, and the result.

    Args:
        end: The search.
        files: Where to write.
        describe: What the result says of itself.
    """
    best = end.best
    chosen = _closest(end.by_choice, end.original) if best is None else best
    last = end.frontier.choice(len(end.frontier) - 1)
    choice = next((c for c, trial in end.by_choice.items() if trial is chosen), last)
    config = end.problem.config(choice)
    plans, records = end.problem.plans_and_records(config)
    planned = end.problem.planned
    record_file = planned.require_record_file()
    write_config(config, files.config)
    write_record(records, record_file)
    final = PlannedGraph(planned.model, config, planned.target, plans, files.config, record_file)
    save_type, storage = fullest_save_type(final, records), end.problem.storage
    saved = save_quantized(final, records, save_type, files.folder, files.prefix, storage=storage)
    result = _result(
        end,
        files,
        satisfied=best is not None,
        metric=float("nan") if chosen is None else chosen.metric,
        size_bytes=end.problem.size_bytes(choice),
        config=config,
        written={**saved.files, "config": files.config, "record": record_file},
        summary=saved.summary,
    )
    return _save_result(result, files, describe)


def save_float_outcome(
    end: SearchEnd, files: SearchFiles, config: QuantConfig, size_bytes: int, describe: Describe
) -> SearchResult:
    """Save the result of a search that ended at the float model: its config and no model.

    Models and a record that an earlier search left under the same names would be taken for this one's: they go.

    Args:
        end: The search.
        files: Where to write.
        config: The config that quantizes nothing.
        size_bytes: The float model's, as the search counts bytes.
        describe: What the result says of itself.
    """
    planned = end.problem.planned
    for path in (planned.require_record_file(), *possible_files(files.folder, files.prefix)):
        path.unlink(missing_ok=True)
    write_config(config, files.config)
    plans = [replace(plan, config=None, reason=plan.reason or "it is rolled back") for plan in planned.plans]
    summary = summarise(planned.model, plans, (), planned.target.name, {"float_model": planned.model.size_bytes})
    result = _result(
        end,
        files,
        satisfied=False,
        metric=end.original.metric,
        size_bytes=size_bytes,
        config=config,
        written={"config": files.config},
        summary=summary,
    )
    return _save_result(result, files, describe)


def _result(
    end: SearchEnd,
    files: SearchFiles,
    *,
    satisfied: bool,
    metric: float,
    size_bytes: int,
    config: QuantConfig,
    written: Mapping[str, Path],
    summary: Summary,
) -> SearchResult:
    trials = (end.original, *end.by_choice.values())
    also = {"ranking": files.ranking, "statistics": files.statistics, "samples": files.samples}
    there = {kind: path for kind, path in also.items() if path is not None and path.exists()}
    return SearchResult(
        satisfied=satisfied,
        original_metric=end.original.metric,
        metric=metric,
        size_bytes=size_bytes,
        uniform_bytes=sum(unit.uniform_bytes for unit in end.problem.units),
        config=config.to_document(),
        units=tuple(unit.name for unit in end.problem.units),
        trials=trials,
        front=pareto_front(trials[1:], greater_is_better=end.objective.greater_is_better),
        stop=end.stop,
        outlook=end.strategy.outlook,
        files={**written, **there, "journal": files.journal, "result": files.result},
        summary=summary,
        message="",
    )


def _save_result(result: SearchResult, files: SearchFiles, describe: Describe) -> SearchResult:
    result = replace(result, message=describe(result))
    write_text_atomically(files.result, dump_json(_document(result)))
    return result


def _closest(by_choice: dict[Choice, Trial], original: Trial) -> Trial | None:
    """The best effort: the metric nearest to the float model's, the most exact choice where several are as near."""
    return min(by_choice.values(), key=lambda t: (abs(t.metric - original.metric), -t.size_bytes), default=None)


def describe_nuq(result: SearchResult, objective: Objective, bytes_are: str) -> str:
    """The outcome of a search over levels, in a sentence or two."""
    evaluations = len(result.trials)
    stopped = "" if result.stop is Stop.DONE else f" Stopped by {result.stop}; called again, the search goes on."
    if not result.satisfied:
        what = "satisfied" if objective.max_bytes is None else f"fitted into {objective.max_bytes:,} bytes"
        return (
            f"No config {what} within {evaluations} evaluations; the saved model is a best effort"
            f" (metric {result.metric:.6g}, float {result.original_metric:.6g})."
            f" Allow a larger drop, more evaluations, or disable sensitive layers in the config.{stopped}"
        )
    best = {
        Goal.SMALLEST: "The smallest of {} evaluated models that satisfies",
        Goal.BEST: "The best of {} evaluated models within the bytes",
        Goal.FRONT: "A front of {} models; saved is the smallest that satisfies",
    }[objective.goal].format(evaluations if objective.goal is not Goal.FRONT else len(result.front))
    outlook = f" {result.outlook}" if result.outlook else " Nothing is left to gain with these options."
    return (
        f"{best}: metric {result.metric:.6g} (float {result.original_metric:.6g}), {result.size_bytes:,} bytes"
        f" {bytes_are}, {result.size_bytes / result.uniform_bytes:.1%} of plain int8's.{stopped or outlook}"
    )


def _document(result: SearchResult) -> dict[str, Any]:
    return {
        "satisfied": result.satisfied,
        "message": result.message,
        "original_metric": result.original_metric,
        "metric": None if result.metric != result.metric else result.metric,
        "size_bytes": result.size_bytes,
        "uniform_bytes": result.uniform_bytes,
        "stop": str(result.stop),
        "outlook": result.outlook,
        "evaluations": len(result.trials),
        "units": list(result.units),
        "trials": _rendered(result.trials),
        "front": [trial.key for trial in result.front],
    }


def _rendered(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    return [{**vars(trial), "options": list(trial.options)} for trial in trials]
