"""The auto_nuq engine: calibrate once, work out the options, let a strategy search, save the best."""

import hashlib
import time
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import EvaluatorError
from amct_lite.files.config import AutoNuqOptions
from amct_lite.files.journal import Journal
from amct_lite.progress import SearchProgress, step_progress
from amct_lite.quantize.planned_graph import PlannedGraph, open_graph
from amct_lite.search.accuracy_test import NuqTest
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.mixed_options import build_mixed_units, searches_mixed
from amct_lite.search.nuq_problem import NuqProblem, config_key
from amct_lite.search.options import build_units
from amct_lite.search.outcome import save_outcome
from amct_lite.search.result import SearchResult
from amct_lite.search.search_calibration import SearchCalibration, calibrate_for_search, refuse_samples
from amct_lite.search.search_options import SearchOptions
from amct_lite.search.strategies.registry import StrategyTask, make_strategy
from amct_lite.search.trials import TrialRunner
from amct_lite.version import VERSION

__all__ = ["problem_of", "run_auto_nuq"]

StrPath = str | PathLike[str]


def run_auto_nuq(
    model_file: StrPath,
    weights_file: StrPath | None,
    nuq_evaluator: AutoNuqEvaluatorBase,
    config_file: StrPath,
    scale_offset_record_file: StrPath,
    save_dir: StrPath,
    *,
    calibration_data: Iterable[Any] | None,
    options: SearchOptions,
) -> SearchResult:
    """See `amct_lite.auto_nuq.auto_nuq`."""
    _check_evaluator(nuq_evaluator)
    deadline = None if options.max_seconds is None else time.monotonic() + options.max_seconds
    planned = open_graph(config_file, model_file, weights_file, scale_offset_record_file)
    mixed = searches_mixed(planned.config)
    refuse_samples(planned, calibration_data, mixed=mixed)
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    statistics_file = _file(folder, planned, "calibration_statistics.npz")
    calibration = calibrate_for_search(
        planned, NuqTest(nuq_evaluator).calibrate, calibration_data, statistics_file, keep_samples=mixed
    )
    problem = problem_of(calibration)
    planned = problem.planned
    frontier = problem.frontier()
    objective = options.objective_for(problem.units)
    task = StrategyTask(problem.units, frontier, objective, options.max_evaluations - 1, problem.quantizes)
    strategy = make_strategy(options.strategy, task)
    test = NuqTest(nuq_evaluator)
    journal = Journal(_file(folder, planned, "auto_nuq_journal.jsonl"), _keys(problem, calibration, nuq_evaluator))
    with SearchProgress(total=options.max_evaluations) as progress, problem.writer:
        runner = TrialRunner(problem, test, journal, jobs=options.jobs, deadline=deadline, progress=progress)
        stop = runner.run(strategy)
    return save_outcome(problem, objective, strategy, runner, stop, frontier, folder, journal.path)


def problem_of(calibration: SearchCalibration) -> NuqProblem:
    """The space that the config asks for."""
    return _mixed_problem(calibration) if searches_mixed(calibration.planned.config) else _nuq_problem(calibration)


def _nuq_problem(calibration: SearchCalibration) -> NuqProblem:
    planned = calibration.planned
    store = FactorStore(planned.model, calibration.statistics)
    units = build_units(planned.plans, store, planned.target, planned.config.auto_nuq or AutoNuqOptions())
    return NuqProblem(planned, units, store, observed=calibration.statistics.tensors)


def _mixed_problem(calibration: SearchCalibration) -> NuqProblem:
    planned = calibration.planned
    with step_progress() as progress:
        units, store = build_mixed_units(planned, calibration.statistics, calibration.feeds, progress=progress)
    observed = calibration.statistics.tensors
    if planned.target.deploy_form == "qdq":
        return NuqProblem(planned, units, store, bytes_are="in the deploy model", storage="packed", observed=observed)
    return NuqProblem(planned, units, store, observed=observed)


def _keys(problem: NuqProblem, calibration: SearchCalibration, evaluator: AutoNuqEvaluatorBase) -> dict[str, str]:
    planned = problem.planned
    return {
        "model": planned.model.digest,
        "config": config_key(planned.config),
        "target": hashlib.sha256(planned.target.model_dump_json().encode()).hexdigest(),
        "calibration data": calibration.digest,
        "evaluator": evaluator.fingerprint(),
        "evaluated form": problem.writer.form,
        "amct_lite version": VERSION,
    }


def _file(folder: Path, planned: PlannedGraph, name: str) -> Path:
    return folder / f"{planned.model.path.stem}_{name}"


def _check_evaluator(evaluator: Any) -> None:
    for method in ("eval_model", "is_satisfied", "fingerprint"):
        if not callable(getattr(evaluator, method, None)):
            raise EvaluatorError(
                f"The 'nuq_evaluator' parameter of auto_nuq must have the method {method}. Got {evaluator!r} instead.",
                remedy="Subclass amct_lite.auto_nuq.AutoNuqEvaluatorBase and give an object of it, not the class.",
            )
    if isinstance(evaluator, type):
        raise EvaluatorError(
            f"The 'nuq_evaluator' parameter of auto_nuq must be an object. Got the class {evaluator.__name__} instead.",
            remedy=f"Give {evaluator.__name__}(...).",
        )
