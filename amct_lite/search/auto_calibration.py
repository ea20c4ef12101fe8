"""The engine of `accuracy_based_auto_calibration`: quantize everything, roll back what must be, save the best."""

import inspect
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.calibration.kept_batches import MAX_KEPT_SAMPLES, load_batches
from amct_lite.calibration.statistics import statistics_digest
from amct_lite.errors import EvaluatorError, ParameterError
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.journal import Journal
from amct_lite.files.json_document import dump_json
from amct_lite.graph.opening import is_caffe
from amct_lite.progress import SearchProgress
from amct_lite.quantize.balancing import balance
from amct_lite.quantize.planned_graph import open_graph
from amct_lite.refine.samples import SampleKeeper
from amct_lite.search.accuracy_test import AccuracyTest, CalibrationTest, NuqTest, require_methods
from amct_lite.search.calibration import calibrate_for_search, refuse_refinement
from amct_lite.search.choices import Choice
from amct_lite.search.config_problem import search_keys
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.layer_ranking import Sensitivity, rank_layers, sensitivity_of
from amct_lite.search.objective import Goal
from amct_lite.search.outcome import SearchEnd, save_float_outcome, save_outcome
from amct_lite.search.result import SearchResult, Stop
from amct_lite.search.roll_back import RollBackProblem, roll_back_units
from amct_lite.search.roll_back_message import describe_roll_back, places
from amct_lite.search.search_files import auto_calibration_files
from amct_lite.search.search_options import SearchOptions
from amct_lite.search.strategies.asking_first import AskingFirst
from amct_lite.search.strategies.protocol import Strategy
from amct_lite.search.strategies.registry import MakeStrategy, StrategyTask, check_strategy, make_strategy
from amct_lite.search.trials import TrialRunner

__all__ = ["run_auto_calibration"]

StrPath = str | PathLike[str]

VERB = "accuracy_based_auto_calibration"
BINARY_SEARCH = "BinarySearch"


def run_auto_calibration(
    model_file: StrPath,
    weights_file: StrPath | None,
    model_evaluator: Any,
    config_file: StrPath,
    record_file: StrPath,
    save_dir: StrPath,
    *,
    calibration_data: Iterable[Any] | None,
    sensitivity: Any,
    options: SearchOptions,
) -> SearchResult:
    """See `amct_lite.auto_calibration.accuracy_based_auto_calibration`."""
    _check_files(model_file, weights_file)
    ranked_by = _check_names(options.strategy, sensitivity)
    test = _adapt(model_evaluator, has_weights=weights_file is not None)
    deadline = None if options.max_seconds is None else time.monotonic() + options.max_seconds
    planned = open_graph(config_file, model_file, weights_file, record_file)
    refuse_refinement(planned)
    files = auto_calibration_files(Path(save_dir), planned.model.path.stem)
    files.folder.mkdir(parents=True, exist_ok=True)
    samples = SampleKeeper.of_model(planned.model.ir, MAX_KEPT_SAMPLES)
    batch_num = planned.config.batch_num
    statistics = calibrate_for_search(
        planned,
        planned.observed_layers,
        None if calibration_data is None else samples.watch(calibration_data, batch_num),
        files,
        test,
        verb=VERB,
    )
    if calibration_data is None and files.samples is not None and files.samples.exists():
        deque(samples.watch(load_batches(files.samples), batch_num), maxlen=0)
    planned, statistics = balance(planned, statistics)
    store = FactorStore(planned.model, statistics)
    ranking = rank_layers(ranked_by, planned, store, samples.feeds)
    if files.ranking is not None:
        write_text_atomically(files.ranking, dump_json(ranking.values))
    units = roll_back_units(planned.plans, store, ranking.errors)
    problem = RollBackProblem(planned, units, store)
    frontier = problem.frontier()
    objective = options.objective_for(units)
    everything: Choice = (0,) * len(units)
    task = StrategyTask(units, frontier, objective, options.max_evaluations - 1, problem.quantizes)
    strategy = _strategy(options.strategy, task, everything)
    journal = Journal(files.journal, search_keys(problem, statistics_digest(statistics), test.fingerprint()))
    with SearchProgress(total=options.max_evaluations) as progress, problem.writer:
        runner = TrialRunner(problem, test, journal, jobs=options.jobs, deadline=deadline, progress=progress)
        stop = runner.run(strategy)
    end = SearchEnd(problem, objective, strategy, runner, stop, frontier)
    whole = runner.trials.get(everything)

    def describe(result: SearchResult) -> str:
        return describe_roll_back(result, planned.plans, whole, ranking)

    if _gave_up(end, task.max_trials):
        nothing = problem.all_float
        return save_float_outcome(end, files, problem.config(nothing), problem.size_bytes(nothing), describe)
    result = save_outcome(end, files, describe)
    return replace(result, message=f"{result.message}\n{places(files.folder, planned.require_record_file())}")


def _strategy(name: str | MakeStrategy, task: StrategyTask, everything: Choice) -> Strategy:
    """The strategy of a name, which looks first at the choice that quantizes everything."""
    if name == BINARY_SEARCH:
        return make_strategy(name, task)  # does so by itself
    return AskingFirst(everything, make_strategy(name, replace(task, max_trials=task.max_trials - 1)))


def _gave_up(end: SearchEnd, max_trials: int) -> bool:
    """Whether the strategy has stopped of itself, budget left and nothing found: then nothing satisfies."""
    strategy = end.strategy
    num_spent = strategy.num_spent if isinstance(strategy, AskingFirst) else len(strategy.trials)
    return end.best is None and end.stop is Stop.DONE and num_spent < max_trials


def _check_files(model_file: StrPath, weights_file: StrPath | None) -> None:
    if not isinstance(model_file, str | PathLike):
        raise ParameterError(
            f"The 'model_file' parameter of {VERB} must be the path of an ONNX file or a prototxt."
            f" Got {model_file!r} instead."
        )
    caffe = is_caffe(model_file, weights_file)
    if caffe and weights_file is None:
        raise ParameterError(
            f"{model_file} is a Caffe network, and no weights_file is given to {VERB}.",
            remedy="Call it with (model_file, weights_file, model_evaluator, config_file, record_file, save_dir).",
        )
    if not caffe and weights_file is not None:
        raise ParameterError(
            f"{model_file} is no Caffe network, but {VERB} got the weights file {str(weights_file)!r}.",
            remedy="For ONNX call it with (model_file, model_evaluator, config_file, record_file, save_dir).",
        )


def _check_names(strategy: str | MakeStrategy, sensitivity: Any) -> Sensitivity:
    """Refuse unknown names before anything is computed."""
    check_strategy(VERB, strategy, Goal.SMALLEST)
    return sensitivity_of(sensitivity, Sensitivity.COSINE if strategy == BINARY_SEARCH else Sensitivity.RELATIVE_MSE)


def _adapt(evaluator: Any, *, has_weights: bool) -> AccuracyTest:
    """The user's evaluator, of whichever class, as a test."""
    where, base = f"'model_evaluator' parameter of {VERB}", "amct_lite.AutoCalibrationEvaluatorBase"
    if hasattr(evaluator, "eval_model") and not hasattr(evaluator, "metric_eval"):
        require_methods(evaluator, ("is_satisfied", "fingerprint"), where=where, base=base)
        return NuqTest(evaluator)
    require_methods(evaluator, ("calibration", "evaluate", "metric_eval", "fingerprint"), where=where, base=base)
    given = ("model_file", "weights_file") if has_weights else ("model_file",)
    for method in ("calibration", "evaluate"):
        _require_parameters(evaluator, method, given)
    return CalibrationTest(evaluator)


def _require_parameters(evaluator: Any, method: str, given: Sequence[str]) -> None:
    """Refuse an evaluator for the other format, whose call would fail only after the calibration."""
    try:
        inspect.signature(getattr(evaluator, method)).bind(*given)
    except TypeError as error:
        network = "Caffe pair" if len(given) == 2 else "network of one file"
        raise EvaluatorError(
            f"{method} of {type(evaluator).__name__} cannot be called with ({', '.join(given)}): {error}.",
            remedy=f"For a {network} define {method}(self, {', '.join(given)}).",
        ) from error
    except ValueError:  # a callable without a signature
        return
