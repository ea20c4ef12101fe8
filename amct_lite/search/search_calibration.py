"""One calibration for a whole search: statistics of all inputs, and samples where options are fitted on them."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_lite.calibration.feeds import input_specs
from amct_lite.calibration.modified_model import write_calibration_model
from amct_lite.calibration.reuse import load_for_layers
from amct_lite.calibration.statistics import Statistics, statistics_digest
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import CalibrationError, ConfigError, EvaluatorError
from amct_lite.export.save import ModelFiles
from amct_lite.graph.runtime import create_session
from amct_lite.progress import sweep_progress
from amct_lite.quantize.balancing import balance, balanced_tensors
from amct_lite.quantize.calibration_task import calibration_task
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.refine.samples import Feed, SampleKeeper
from amct_lite.types import Layer

__all__ = ["SearchCalibration", "calibrate_for_search", "refuse_samples"]

Calibrate = Callable[[ModelFiles, int], None]
"""Runs a calibration model over a number of batches, in the user's own code."""

# Samples on which a mixed search fits its options: moments of more change little, and each option reads them.
MAX_SAMPLES = 128


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
        digest = hashlib.sha256(statistics_digest(self.statistics).encode())
        for feed in self.feeds:
            for name in sorted(feed):
                digest.update(feed[name].tobytes())
        return digest.hexdigest() if self.feeds else statistics_digest(self.statistics)


def refuse_samples(planned: PlannedGraph, data: Iterable[Any] | None, *, mixed: bool) -> None:
    """Refuse what a search cannot do, before anything runs.

    Args:
        planned: The user's config and model.
        data: The calibration data, if any.
        mixed: Whether the search is over a search_space, and fits options on samples.

    Raises:
        ConfigError: A layer asks for what the search does not do.
        CalibrationError: A mixed search has no data.
    """
    if mixed and data is None:
        raise CalibrationError(
            "A search over a search_space fits its options on samples, and there is no calibration_data.",
            remedy="Give calibration_data to the search: arrays, or dicts from input name to array.",
        )
    for plan in planned.plans:
        if plan.config is None:
            continue
        if plan.codebook is not None and not mixed:
            raise ConfigError(
                "The search chooses among int8 weights, and this layer asks for a codebook.",
                layer=plan.layer.name,
                remedy='Give the config a "search_space" with codebooks in it, set wts_algo to "arq_quantize", or give'
                " the whole network codebooks with `compress`.",
            )
        searched = planned.config.search_space or planned.config.layers[plan.layer.name].search_space
        if plan.has_output_aware_levels or (plan.needs_samples and not (mixed and searched)):
            raise ConfigError(
                f"The search works from one sweep, and this layer is refined on samples ({plan.sample_use}).",
                layer=plan.layer.name,
                remedy="Switch that off in the config, or calibrate without a search.",
            )


def calibrate_for_search(
    planned: PlannedGraph,
    run_users_code: Calibrate,
    data: Iterable[Any] | None,
    statistics_file: Path,
    *,
    keep_samples: bool,
) -> SearchCalibration:
    """One sweep over the data; without data, the user's own run over a calibration model.

    Args:
        planned: The user's config and model.
        run_users_code: What calibrates where there is no data.
        data: The calibration data, if any.
        statistics_file: Where the statistics of the user's own run are kept.
        keep_samples: Whether to keep samples of the data.

    Raises:
        EvaluatorError: The user's code did not run the calibration model through to its end.
    """
    if data is None:
        statistics = _calibrated_by_user(planned, run_users_code, statistics_file)
        return SearchCalibration(*balance(planned, statistics))
    batch_num = planned.config.batch_num
    keeper = SampleKeeper(input_specs(create_session(planned.model.ir)), MAX_SAMPLES) if keep_samples else None
    with sweep_progress(batch_num) as progress:
        statistics = sweep(
            planned.model,
            _observed(planned),
            data if keeper is None else keeper.watch(data, batch_num),
            batch_num,
            by_channel=balanced_tensors(planned.plans),
            progress=progress,
        )
    return SearchCalibration(*balance(planned, statistics), () if keeper is None else tuple(keeper.feeds))


def _calibrated_by_user(planned: PlannedGraph, run_users_code: Calibrate, path: Path) -> Statistics:
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix="amct_lite_calibration_") as scratch:
            source = planned.model
            model = Path(scratch) / f"calibration_model{source.path.suffix}"
            weights = None if source.weights_path is None else model.with_suffix(source.weights_path.suffix)
            write_calibration_model(source, calibration_task(planned, statistics_file=path), model, weights)
            run_users_code(ModelFiles(model, weights), planned.config.batch_num)
    if not path.exists():
        raise EvaluatorError(
            f"eval_model ran, but did not calibrate over batch_num = {planned.config.batch_num} batches.",
            remedy="Let eval_model run the model through amct_lite.InferenceSession for batch_num batches, or give"
            " calibration_data to auto_nuq.",
        )
    return load_for_layers(
        path,
        planned.model,
        _observed(planned),
        planned.config.batch_num,
        by_channel=balanced_tensors(planned.plans),
    )


def _observed(planned: PlannedGraph) -> list[Layer]:
    """One layer for each tensor to observe, those between layers included; where several read one, the last."""
    layers = (*(plan.layer for plan in planned.tensor_plans), *planned.quantized_layers)
    return list({layer.activation: layer for layer in layers}.values())
