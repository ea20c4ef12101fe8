"""The auto_nuq engine: calibrate once, work out the options, let a strategy search, save the best."""

import time
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.files.config import AutoNuqOptions
from amct_lite.files.journal import Journal
from amct_lite.progress import SearchProgress
from amct_lite.quantize.balancing import balance
from amct_lite.quantize.planned_graph import open_graph
from amct_lite.search.accuracy_test import NuqTest, require_methods
from amct_lite.search.calibration import calibrate_for_search, refuse_refinement
from amct_lite.search.config_problem import search_keys
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.frontier import build_frontier
from amct_lite.search.nuq_problem import NuqProblem
from amct_lite.search.options import build_units
from amct_lite.search.outcome import SearchEnd, describe_nuq, save_outcome
from amct_lite.search.result import SearchResult
from amct_lite.search.search_files import auto_nuq_files
from amct_lite.search.search_options import SearchOptions
from amct_lite.search.strategies.registry import StrategyTask, make_strategy
from amct_lite.search.trials import TrialRunner

__all__ = ["run_auto_nuq"]

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
    require_methods(
        nuq_evaluator,
        ("eval_model", "is_satisfied", "fingerprint"),
        where="'nuq_evaluator' parameter of auto_nuq",
        base="amct_lite.auto_nuq.AutoNuqEvaluatorBase",
    )
    deadline = None if options.max_seconds is None else time.monotonic() + options.max_seconds
    planned = open_graph(config_file, model_file, weights_file, scale_offset_record_file)
    refuse_refinement(planned)
    files = auto_nuq_files(Path(save_dir), planned.model.path.stem)
    files.folder.mkdir(parents=True, exist_ok=True)
    statistics = calibrate_for_search(
        planned,
        planned.quantized_layers,
        calibration_data,
        files,
        lambda model, weights: nuq_evaluator.eval_model(model, weights, planned.config.batch_num),
        method="eval_model",
        verb="auto_nuq",
    )
    planned, statistics = balance(planned, statistics)
    store = FactorStore(planned.model, statistics)
    units = build_units(planned.plans, store, planned.target, planned.config.auto_nuq or AutoNuqOptions())
    problem = NuqProblem(planned, units, store)
    frontier = build_frontier(units)
    frontier = frontier.only([problem.quantizes(frontier.choice(point)) for point in range(len(frontier))])
    objective = options.objective_for(units)
    strategy = make_strategy(options.strategy, StrategyTask(units, frontier, objective, options.max_evaluations - 1))
    test = NuqTest(nuq_evaluator)
    journal = Journal(files.journal, search_keys(planned, statistics, test.fingerprint()))
    with SearchProgress(total=options.max_evaluations) as progress:
        runner = TrialRunner(problem, test, journal, jobs=options.jobs, deadline=deadline, progress=progress)
        stop = runner.run(strategy)
    end = SearchEnd(problem, objective, strategy, runner, stop, frontier)
    return save_outcome(end, files, lambda result: describe_nuq(result, objective, problem.bytes_are))
