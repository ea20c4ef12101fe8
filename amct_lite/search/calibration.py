"""The one calibration of a search: a sweep over the data, or the evaluator's own run over a calibration model."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_lite.calibration.modified_model import write_calibration_model
from amct_lite.calibration.reuse import load_for_layers
from amct_lite.calibration.statistics import Statistics, statistics_digest
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import ConfigError, EvaluatorError
from amct_lite.export.save import ModelFiles
from amct_lite.observing_operators import calibration_failure
from amct_lite.progress import sweep_progress
from amct_lite.quantize.balancing import balanced_tensors
from amct_lite.quantize.calibration_task import calibration_task
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.refine.samples import Feed
from amct_lite.search.accuracy_test import AccuracyTest
from amct_lite.search.search_files import SearchFiles
from amct_lite.types import Layer

__all__ = ["SearchCalibration", "calibrate_for_search", "observed_between_too", "refuse_refinement"]


@dataclass(frozen=True)
class SearchCalibration:
    """What a search knows of the data.

    Attributes:
        planned: The graph, balanced where the config asks for it.
        statistics: Of the inputs that are quantized.
        feeds: Samples; none where no option is fitted on them.
    """

    planned: PlannedGraph
    statistics: Statistics
    feeds: Sequence[Feed] = ()

    @property
    def digest(self) -> str:
        """Tells one calibration from another."""
        of_statistics = statistics_digest(self.statistics)
        if not self.feeds:
            return of_statistics
        digest = hashlib.sha256(of_statistics.encode())
        for feed in self.feeds:
            for name in sorted(feed):
                digest.update(feed[name].tobytes())
        return digest.hexdigest()


def refuse_refinement(planned: PlannedGraph) -> None:
    """Refuse factors that are not made layer by layer from statistics alone, and that no search space replaces.

    Raises:
        ConfigError: There is one.
    """
    _refuse_whole_network(planned)
    for plan in planned.plans:
        if plan.config is None:
            continue
        searched = planned.config.search_space or planned.config.layers[plan.layer.name].search_space
        if plan.codebook is not None and not searched:
            raise ConfigError(
                "The search chooses among int8 weights, and this layer asks for a codebook.",
                layer=plan.layer.name,
                remedy='Give auto_nuq a "search_space" with codebooks in it, set wts_algo to "arq_quantize", or give'
                " the whole network codebooks with `compress`.",
            )
        if plan.has_output_aware_levels or (plan.needs_samples and not searched):
            raise ConfigError(
                f"The search works from one sweep, and this layer is refined on samples ({plan.sample_use}).",
                layer=plan.layer.name,
                remedy="Switch that off in the config, or calibrate without a search.",
            )


def _refuse_whole_network(planned: PlannedGraph) -> None:
    if planned.target.shift_bit:
        raise ConfigError(
            f"The search works from one sweep, and the target {planned.target.name!r} has shift_bit, which is found on"
            " samples behind it.",
            remedy="Search under a target without shift_bit, then calibrate with the config found under this one.",
        )
    if planned.config.fakequant_precision_mode != "DEFAULT":
        raise ConfigError(
            "The search evaluates candidates that round in float32.",
            remedy='Set "fakequant_precision_mode" to "DEFAULT", or calibrate without a search.',
        )
    if planned.config.joint_quant:
        raise ConfigError(
            "The search finds each layer's factors by themselves, and joint_quant makes layers share them.",
            remedy="Set joint_quant to false, or calibrate without a search.",
        )


def observed_between_too(planned: PlannedGraph) -> list[Layer]:
    """One layer for each tensor to observe, those between layers included; where several read one, the last."""
    layers = (*(plan.layer for plan in planned.tensor_plans), *planned.quantized_layers)
    return list({layer.activation: layer for layer in layers}.values())


def calibrate_for_search(
    planned: PlannedGraph,
    layers: Sequence[Layer],
    data: Iterable[Any] | None,
    files: SearchFiles,
    test: AccuracyTest,
    *,
    verb: str,
) -> Statistics:
    """Observe the layers' inputs once.

    Args:
        planned: The network and its config.
        layers: The layers to observe.
        data: Batches; None lets the evaluator run a calibration model.
        files: Where that run's statistics and samples are kept, so that a search that is started again needs none.
        test: The evaluator.
        verb: The function that the user called, for messages.

    Raises:
        CalibrationError: The data does not fit.
        EvaluatorError: The evaluator ran, but not through a session that observes, or over too few batches.
    """
    by_channel = balanced_tensors(planned.plans)
    batch_num = planned.config.batch_num
    if data is not None:
        with sweep_progress(batch_num) as progress:
            return sweep(planned.model, layers, data, batch_num, by_channel=by_channel, progress=progress)
    if not files.statistics.exists():
        _let_run(planned, files, test)
    if not files.statistics.exists():
        method = test.calibrating_method
        raise EvaluatorError(
            f"{method} ran, but did not calibrate over batch_num = {batch_num} batches.",
            remedy=f"Let {method} run the model through amct_lite.InferenceSession (or amct_lite.pycaffe) for batch_num"
            f" batches, or give calibration_data to {verb}.",
        )
    return load_for_layers(files.statistics, planned.model, layers, batch_num, by_channel=by_channel)


def _let_run(planned: PlannedGraph, files: SearchFiles, test: AccuracyTest) -> None:
    with tempfile.TemporaryDirectory(prefix="amct_lite_calibration_") as scratch:
        source = planned.model
        model = Path(scratch) / f"calibration_model{source.path.suffix}"
        weights = None if source.weights_path is None else model.with_suffix(source.weights_path.suffix)
        task = calibration_task(planned, statistics_file=files.statistics, samples_file=files.samples)
        write_calibration_model(source, task, model, weights)
        test.calibrate(ModelFiles(model, weights), planned.config.batch_num)
        failure = calibration_failure(model)
        if failure is not None:
            raise failure
