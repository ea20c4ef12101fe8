"""The auto_nuq engine: calibrate once, work out the options, let a strategy search, save the best."""

import time
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import CalibrationError
from amct_lite.files.config import AutoNuqOptions
from amct_lite.files.journal import Journal
from amct_lite.progress import SearchProgress, step_progress
from amct_lite.quantize.balancing import balance
from amct_lite.quantize.planned_graph import PlannedGraph, open_graph
from amct_lite.refine.samples import SampleKeeper
from amct_lite.search.accuracy_test import AccuracyTest, NuqTest, require_methods
from amct_lite.search.calibration import (
    SearchCalibration,
    calibrate_for_search,
    observed_between_too,
    refuse_refinement,
)
from amct_lite.search.config_problem import search_keys
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.mixed_options import build_mixed_units, searches_mixed
from amct_lite.search.nuq_problem import NuqProblem
from amct_lite.search.options import build_units
from amct_lite.search.outcome import SearchEnd, describe_nuq, save_outcome
from amct_lite.search.result import SearchResult
from amct_lite.search.search_files import SearchFiles, auto_nuq_files
from amct_lite.search.search_options import SearchOptions
from amct_lite.search.strategies.registry import StrategyTask, make_strategy
from amct_lite.search.trials import TrialRunner

__all__ = ["calibrate_auto_nuq", "problem_of", "run_auto_nuq"]

StrPath = str | PathLike[str]

# Samples on which a mixed search fits its options: moments of more change little, and each option reads them.
MAX_SAMPLES = 128


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
    require_methods(
        nuq_evaluator,
        ("eval_model", "is_satisfied", "fingerprint"),
        where="'nuq_evaluator' parameter of auto_nuq",
        base="amct_lite.auto_nuq.AutoNuqEvaluatorBase",
    )
    deadline = None if options.max_seconds is None else time.monotonic() + options.max_seconds
    planned = open_graph(config_file, model_file, weights_file, scale_offset_record_file)
    files = auto_nuq_files(Path(save_dir), planned.model.path.stem)
    test = NuqTest(nuq_evaluator)
    calibration = calibrate_auto_nuq(planned, test, calibration_data, files)
    problem = problem_of(calibration)
    frontier = problem.frontier()
    objective = options.objective_for(problem.units)
    task = StrategyTask(problem.units, frontier, objective, options.max_evaluations - 1, problem.quantizes)
    strategy = make_strategy(options.strategy, task)
    journal = Journal(files.journal, search_keys(problem, calibration.digest, test.fingerprint()))
    with SearchProgress(total=options.max_evaluations) as progress, problem.writer:
        runner = TrialRunner(problem, test, journal, jobs=options.jobs, deadline=deadline, progress=progress)
        stop = runner.run(strategy)
    end = SearchEnd(problem, objective, strategy, runner, stop, frontier)
    return save_outcome(end, files, lambda result: describe_nuq(result, objective, problem.bytes_are))


def calibrate_auto_nuq(
    planned: PlannedGraph,
    test: AccuracyTest,
    data: Iterable[Any] | None,
    files: SearchFiles,
) -> SearchCalibration:
    """The one calibration of a search, which keeps samples where options are fitted on them.

    Raises:
        ConfigError: A layer asks for what no search does.
        CalibrationError: There is no data where samples are needed, or it does not fit.
    """
    mixed = searches_mixed(planned.config)
    if mixed and data is None:
        raise CalibrationError(
            "A search over a search_space fits its options on samples, and there is no calibration_data.",
            remedy="Give calibration_data to the search: arrays, or dicts from input name to array.",
        )
    refuse_refinement(planned)
    files.folder.mkdir(parents=True, exist_ok=True)
    keeper = SampleKeeper.of_model(planned.model.ir, MAX_SAMPLES) if mixed else None
    batch_num = planned.config.batch_num
    statistics = calibrate_for_search(
        planned,
        observed_between_too(planned),
        data if keeper is None or data is None else keeper.watch(data, batch_num),
        files,
        test,
        verb="auto_nuq",
    )
    return SearchCalibration(*balance(planned, statistics), () if keeper is None else tuple(keeper.feeds))


def problem_of(calibration: SearchCalibration) -> NuqProblem:
    """The space that the config asks for."""
    planned, observed = calibration.planned, calibration.statistics.tensors
    if not searches_mixed(planned.config):
        store = FactorStore(planned.model, calibration.statistics)
        options = planned.config.auto_nuq or AutoNuqOptions()
        units = build_units(planned.plans, store, planned.target, options)
        return NuqProblem(planned, units, store, observed=observed)
    with step_progress() as progress:
        units, mixed = build_mixed_units(planned, calibration.statistics, calibration.feeds, progress=progress)
    if planned.target.deploy_form == "qdq":
        return NuqProblem(planned, units, mixed, bytes_are="in the deploy model", storage="packed", observed=observed)
    return NuqProblem(planned, units, mixed, observed=observed)
