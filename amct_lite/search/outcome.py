"""The end of a search: the best choice becomes files, and everything that was seen becomes a result."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amct_lite.export.save import fullest_save_type, save_quantized
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.config_file import write_config
from amct_lite.files.json_document import dump_json
from amct_lite.files.record import write_record
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.choices import Choice
from amct_lite.search.frontier import Frontier
from amct_lite.search.nuq_problem import NuqProblem
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.result import SearchResult, Stop, Trial, pareto_front
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.trials import TrialRunner

__all__ = ["save_outcome"]


def save_outcome(
    problem: NuqProblem,
    objective: Objective,
    strategy: Strategy,
    runner: TrialRunner,
    stop: Stop,
    frontier: Frontier,
    folder: Path,
    journal_file: Path,
) -> SearchResult:
    """Save the best choice, or the best effort marked as such, and the result.

    Args:
        problem: What was searched over.
        objective: What was to be found.
        strategy: After the search.
        runner: After the search.
        stop: Why it ended.
        frontier: Its most exact choice is saved where no choice was evaluated at all.
        folder: Where to write.
        journal_file: Named in the result.
    """
    assert runner.original is not None
    by_choice = {choice: runner.trials[choice] for choice in strategy.trials if choice in runner.trials}
    best = objective.best(list(by_choice.values()))
    chosen = _closest(by_choice, runner.original) if best is None else best
    choice = next((c for c, trial in by_choice.items() if trial is chosen), frontier.choice(len(frontier) - 1))
    config = problem.config(choice)
    plans, records = problem.plans_and_records(config)
    planned, stem = problem.planned, problem.planned.model.path.stem
    config_path, record_file = folder / f"{stem}_auto_nuq_config.json", planned.require_record_file()
    write_config(config, config_path)
    write_record(records, record_file)
    final = PlannedGraph(planned.model, config, planned.target, plans, config_path, record_file)
    saved = save_quantized(final, records, fullest_save_type(final, records), folder, stem, storage=problem.storage)
    result_path = folder / f"{stem}_auto_nuq_result.json"
    trials = (runner.original, *by_choice.values())
    result = SearchResult(
        satisfied=best is not None,
        original_metric=runner.original.metric,
        metric=float("nan") if chosen is None else chosen.metric,
        size_bytes=problem.size_bytes(choice),
        uniform_bytes=sum(unit.uniform_bytes for unit in problem.units),
        config=config.to_document(),
        units=tuple(unit.name for unit in problem.units),
        trials=trials,
        front=pareto_front(trials[1:], greater_is_better=objective.greater_is_better),
        stop=stop,
        outlook=strategy.outlook,
        files={
            **saved.files,
            "config": config_path,
            "record": record_file,
            "journal": journal_file,
            "result": result_path,
        },
        summary=saved.summary,
        message="",
    )
    result = dataclasses.replace(result, message=_message(result, objective, problem.bytes_are))
    write_text_atomically(result_path, dump_json(_document(result)))
    return result


def _closest(by_choice: dict[Choice, Trial], original: Trial) -> Trial | None:
    """The best effort: the metric nearest to the float model's, the most exact choice where several are as near."""
    return min(by_choice.values(), key=lambda t: (abs(t.metric - original.metric), -t.size_bytes), default=None)


def _message(result: SearchResult, objective: Objective, bytes_are: str) -> str:
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
