"""What a planned graph asks of the session that calibrates it."""

from pathlib import Path

from amct_lite.calibration.modified_model import CalibrationTask
from amct_lite.calibration.observer_nodes import observable_inputs
from amct_lite.errors import ParameterError
from amct_lite.quantize.balancing import balanced_tensors
from amct_lite.quantize.planned_graph import PlannedGraph

__all__ = ["calibration_task"]


def calibration_task(
    graph: PlannedGraph,
    *,
    record_file: Path | None = None,
    statistics_file: Path | None = None,
    samples_file: Path | None = None,
) -> CalibrationTask:
    """What the session of a calibration model of this graph has to do.

    Args:
        graph: The planned graph.
        record_file: Where to write the record in the end; None for none.
        statistics_file: Where to write the statistics in the end; None for none.
        samples_file: Where to keep the first batches; None for nowhere.
    """
    if graph.config_file is None:
        raise ParameterError("A calibration model needs a config file that its session can read.")
    if graph.target.shift_bit:
        raise ParameterError(
            f"The target {graph.target.name!r} has shift_bit, which is found on samples behind the ranges.",
            remedy="Calibrate with amct_lite.calibrate(graph, batches).",
        )
    for plan in graph.plans:
        if plan.needs_samples:
            raise ParameterError(
                f"Layer {plan.layer.name!r} is refined on samples ({plan.sample_use}), which run through the network"
                " many times.",
                remedy="Calibrate with amct_lite.calibrate(graph, batches), or switch that off in the config.",
            )
    return CalibrationTask(
        tensors={layer.activation: layer.channel_axis for layer in graph.observed_layers},
        outputs=[value.name or "" for value in graph.model.ir.graph.outputs],
        batch_num=graph.config.batch_num,
        model_digest=graph.model.digest,
        model_file=graph.model.path.resolve(),
        weights_file=None if graph.model.weights_path is None else graph.model.weights_path.resolve(),
        config_file=graph.config_file.resolve(),
        record_file=None if record_file is None else record_file.resolve(),
        statistics_file=None if statistics_file is None else statistics_file.resolve(),
        samples_file=None if samples_file is None else samples_file.resolve(),
        by_channel=balanced_tensors(graph.plans),
        inputs=observable_inputs(graph.model.ir),
    )
