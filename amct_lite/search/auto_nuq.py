"""The auto_nuq engine: calibrate once, build the path, bisect it with the evaluator, refine, save the best."""

import hashlib
import tempfile
import time
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.calibration.modified_model import write_calibration_model
from amct_lite.calibration.reuse import load_for_layers
from amct_lite.calibration.statistics import Statistics, statistics_digest
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import ConfigError, EvaluatorError, ParameterError
from amct_lite.export.save import fullest_save_type, save_quantized
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.config import AutoNuqOptions
from amct_lite.files.config_file import write_config
from amct_lite.files.journal import Journal
from amct_lite.files.json_document import dump_json
from amct_lite.files.record import write_record
from amct_lite.progress import SearchProgress, sweep_progress
from amct_lite.quantize.balancing import balance, balanced_tensors
from amct_lite.quantize.calibration_task import calibration_task
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph, open_graph
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.options import build_units
from amct_lite.search.path import Choice, Unit, build_path, choice_bytes
from amct_lite.search.result import SearchResult
from amct_lite.search.strategy import bisect_path, refine
from amct_lite.search.trials import BudgetSpentError, TrialRunner, config_key, config_of
from amct_lite.version import VERSION

__all__ = ["DEFAULT_MAX_EVALUATIONS", "run_auto_nuq"]

DEFAULT_MAX_EVALUATIONS = 25

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
    max_evaluations: int | None,
    max_seconds: float | None,
) -> SearchResult:
    """See `amct_lite.auto_nuq.auto_nuq`."""
    _check_parameters(nuq_evaluator, max_evaluations, max_seconds)
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    planned = open_graph(config_file, model_file, weights_file, scale_offset_record_file)
    _refuse_refinement(planned)
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    statistics = _calibrate(planned, nuq_evaluator, calibration_data, folder)
    planned, statistics = balance(planned, statistics)
    store = FactorStore(planned.model, statistics)
    units = build_units(planned.plans, store, planned.target, planned.config.auto_nuq or AutoNuqOptions())
    path = _quantizing(build_path(units), units, planned)
    journal = Journal(_file(folder, planned, "auto_nuq_journal.jsonl"), _keys(planned, statistics, nuq_evaluator))
    progress = SearchProgress(total=max_evaluations or DEFAULT_MAX_EVALUATIONS)
    runner = TrialRunner(
        planned,
        units,
        store,
        nuq_evaluator,
        journal,
        max_evaluations=max_evaluations or DEFAULT_MAX_EVALUATIONS,
        deadline=deadline,
        report=progress.trial,
    )
    with progress:
        runner.evaluate_float()
        _search(runner, units, path)
    return _finish(planned, units, store, runner, path[-1], folder)


def _refuse_refinement(planned: PlannedGraph) -> None:
    for plan in planned.plans:
        if plan.codebook is not None:
            raise ConfigError(
                "The search chooses among int8 weights, and this layer asks for a codebook.",
                layer=plan.layer.name,
                remedy='Set wts_algo to "arq_quantize", or give the whole network codebooks with `compress`.',
            )
        if plan.needs_samples:
            raise ConfigError(
                f"The search works from one sweep, and this layer is refined on samples ({plan.sample_use}).",
                layer=plan.layer.name,
                remedy="Switch that off in the config, or calibrate without a search.",
            )


def _search(runner: TrialRunner, units: Sequence[Unit], path: Sequence[Choice]) -> None:
    try:
        found = bisect_path(path, runner.satisfies)
        if found is not None:
            refine(units, found, runner.satisfies)
    except BudgetSpentError:
        pass  # the runner keeps the best choice that it saw


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


def _quantizing(path: Sequence[Choice], units: Sequence[Unit], planned: PlannedGraph) -> list[Choice]:
    """The part of the path on which at least one layer is quantized."""
    chosen = {name for unit in units if unit.kind == "weight" for name in unit.layers}
    always = any(p.config is not None and p.layer.name not in chosen for p in planned.plans)

    def quantizes(choice: Choice) -> bool:
        pairs = zip(units, choice, strict=True)
        return always or any(u.kind == "weight" and not u.options[i].is_float for u, i in pairs)

    return [choice for choice in path if quantizes(choice)]


def _finish(
    planned: PlannedGraph,
    units: Sequence[Unit],
    store: FactorStore,
    runner: TrialRunner,
    most_exact: Choice,
    folder: Path,
) -> SearchResult:
    """Save the best choice, or the best effort marked as such."""
    choice = runner.best or runner.last or most_exact
    config = config_of(planned, units, choice)
    plans = make_plan(planned.model.layers, config, planned.target)
    records = store.records(plans)
    config_path = _file(folder, planned, "auto_nuq_config.json")
    write_config(config, config_path)
    record_file = planned.require_record_file()
    write_record(records, record_file)
    final = PlannedGraph(planned.model, config, planned.target, plans, config_path, record_file)
    save_type = fullest_save_type(final, records)
    saved = save_quantized(final, records, save_type, folder, planned.model.path.stem)
    size, uniform = choice_bytes(units, choice), sum(unit.uniform_bytes for unit in units)
    metric = next((t.metric for t in runner.trials if t.key == config_key(config)), float("nan"))
    result_path = _file(folder, planned, "auto_nuq_result.json")
    result = SearchResult(
        satisfied=runner.best is not None,
        original_metric=runner.original_metric,
        metric=metric,
        size_bytes=size,
        uniform_bytes=uniform,
        config=config.to_document(),
        trials=tuple(runner.trials),
        files={
            **saved.files,
            "config": config_path,
            "record": record_file,
            "journal": _file(folder, planned, "auto_nuq_journal.jsonl"),
            "result": result_path,
        },
        summary=saved.summary,
        message=_message(runner, metric, size, uniform),
    )
    write_text_atomically(result_path, dump_json(_document(result)))
    return result


def _message(runner: TrialRunner, metric: float, size: int, uniform: int) -> str:
    evaluations = len(runner.trials)
    if runner.best is None:
        return (
            f"No config satisfied within {evaluations} evaluations; the saved model is a best effort"
            f" (metric {metric:.6g}, float {runner.original_metric:.6g})."
            " Allow a larger drop, more evaluations, or disable sensitive layers in the config."
        )
    return (
        f"The smallest of {evaluations} evaluated models that satisfies: metric {metric:.6g} (float"
        f" {runner.original_metric:.6g}), {size:,} bytes after lossless compression, {size / uniform:.1%} of plain"
        " int8's."
    )


def _document(result: SearchResult) -> dict[str, Any]:
    return {
        "satisfied": result.satisfied,
        "message": result.message,
        "original_metric": result.original_metric,
        "metric": None if result.metric != result.metric else result.metric,
        "size_bytes": result.size_bytes,
        "uniform_bytes": result.uniform_bytes,
        "evaluations": len(result.trials),
        "trials": [vars(trial) for trial in result.trials],
    }


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


def _check_parameters(evaluator: Any, max_evaluations: int | None, max_seconds: float | None) -> None:
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
    if max_evaluations is not None and (isinstance(max_evaluations, bool) or max_evaluations < 2):
        raise ParameterError(
            "The 'max_evaluations' parameter of auto_nuq must be an int >= 2 (the float model takes one)."
            f" Got {max_evaluations!r} instead."
        )
    if max_seconds is not None and max_seconds <= 0:
        raise ParameterError(f"The 'max_seconds' parameter of auto_nuq must be > 0. Got {max_seconds!r} instead.")
