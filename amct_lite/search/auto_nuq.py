"""The auto_nuq engine: calibrate once, work out the options, let a strategy search, save the best."""

import hashlib
import tempfile
import time
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.calibration.modified_model import write_calibration_model
from amct_lite.calibration.reuse import load_for_layers
from amct_lite.calibration.statistics import Statistics, statistics_digest
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import ConfigError, EvaluatorError
from amct_lite.files.config import AutoNuqOptions
from amct_lite.files.journal import Journal
from amct_lite.progress import SearchProgress, sweep_progress
from amct_lite.quantize.balancing import balance, balanced_tensors
from amct_lite.quantize.calibration_task import calibration_task
from amct_lite.quantize.planned_graph import PlannedGraph, open_graph
from amct_lite.search.accuracy_test import NuqTest
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.frontier import build_frontier
from amct_lite.search.nuq_problem import NuqProblem, config_key
from amct_lite.search.options import build_units
from amct_lite.search.outcome import save_outcome
from amct_lite.search.result import SearchResult
from amct_lite.search.search_options import SearchOptions
from amct_lite.search.strategies.registry import StrategyTask, make_strategy
from amct_lite.search.trials import TrialRunner
from amct_lite.version import VERSION

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
    _check_evaluator(nuq_evaluator)
    deadline = None if options.max_seconds is None else time.monotonic() + options.max_seconds
    planned = open_graph(config_file, model_file, weights_file, scale_offset_record_file)
    _refuse_refinement(planned)
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    statistics = _calibrate(planned, nuq_evaluator, calibration_data, folder)
    planned, statistics = balance(planned, statistics)
    store = FactorStore(planned.model, statistics)
    units = build_units(planned.plans, store, planned.target, planned.config.auto_nuq or AutoNuqOptions())
    problem = NuqProblem(planned, units, store)
    frontier = build_frontier(units)
    frontier = frontier.only([problem.quantizes(frontier.choice(point)) for point in range(len(frontier))])
    objective = options.objective_for(units)
    task = StrategyTask(units, frontier, objective, options.max_evaluations - 1, problem.quantizes)
    strategy = make_strategy(options.strategy, task)
    test = NuqTest(nuq_evaluator)
    journal = Journal(_file(folder, planned, "auto_nuq_journal.jsonl"), _keys(planned, statistics, nuq_evaluator))
    with SearchProgress(total=options.max_evaluations) as progress:
        runner = TrialRunner(problem, test, journal, jobs=options.jobs, deadline=deadline, progress=progress)
        stop = runner.run(strategy)
    return save_outcome(problem, objective, strategy, runner, stop, frontier, folder, journal.path)


def _refuse_refinement(planned: PlannedGraph) -> None:
    for plan in planned.plans:
        if plan.codebook is not None:
            raise ConfigError(
                "The search chooses among int8 weights, and this layer asks for a codebook.",
                layer=plan.layer.name,
                remedy='Set wts_algo to "arq_quantize", or give the whole network codebooks with `compress`.',
            )
        if plan.uses_samples:
            raise ConfigError(
                f"The search works from one sweep, and this layer is refined on samples ({plan.sample_use}).",
                layer=plan.layer.name,
                remedy="Switch that off in the config, or calibrate without a search.",
            )


def _calibrate(
    planned: PlannedGraph, evaluator: AutoNuqEvaluatorBase, data: Iterable[Any] | None, folder: Path
) -> Statistics:
    """One sweep over the data; without data, the evaluator's own run over a calibration model."""
    if data is not None:
        with sweep_progress(planned.config.batch_num) as progress:
            return sweep(
                planned.model,
                planned.quantized_layers,
                data,
                planned.config.batch_num,
                by_channel=balanced_tensors(planned.plans),
                progress=progress,
            )
    path = _file(folder, planned, "calibration_statistics.npz")
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix="amct_lite_calibration_") as scratch:
            source = planned.model
            model = Path(scratch) / f"calibration_model{source.path.suffix}"
            weights = None if source.weights_path is None else model.with_suffix(source.weights_path.suffix)
            write_calibration_model(source, calibration_task(planned, statistics_file=path), model, weights)
            evaluator.eval_model(str(model), None if weights is None else str(weights), planned.config.batch_num)
    if not path.exists():
        raise EvaluatorError(
            f"eval_model ran, but did not calibrate over batch_num = {planned.config.batch_num} batches.",
            remedy="Let eval_model run the model through amct_lite.InferenceSession for batch_num batches, or give"
            " calibration_data to auto_nuq.",
        )
    return load_for_layers(
        path,
        planned.model,
        planned.quantized_layers,
        planned.config.batch_num,
        by_channel=balanced_tensors(planned.plans),
    )


def _keys(planned: PlannedGraph, statistics: Statistics, evaluator: AutoNuqEvaluatorBase) -> dict[str, str]:
    return {
        "model": planned.model.digest,
        "config": config_key(planned.config),
        "target": hashlib.sha256(planned.target.model_dump_json().encode()).hexdigest(),
        "calibration data": statistics_digest(statistics),
        "evaluator": evaluator.fingerprint(),
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
