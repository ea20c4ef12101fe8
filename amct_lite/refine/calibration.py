"""All factors of a planned graph: one sweep over the batches, then the closed loop over the samples kept from it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from amct_lite.calibration.feeds import input_specs
from amct_lite.calibration.statistics import Statistics
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import CalibrationError
from amct_lite.files.record import LayerRecord
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.balancing import balance, balanced_tensors
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.range_choice import range_groups
from amct_lite.refine.closed_loop import refine_layers
from amct_lite.refine.range_choice import choose_ranges
from amct_lite.refine.samples import SampleKeeper

__all__ = ["find_records"]

Progress = Callable[[int, int], None]


def find_records(
    graph: PlannedGraph,
    batches: Iterable[Any] | None,
    *,
    progress: Progress | None = None,
    sess_options: Any = None,
) -> dict[str, LayerRecord]:
    """Find the factors of every layer that the plan quantizes.

    Args:
        graph: The planned graph.
        batches: The calibration data; None where nothing needs any.
        progress: Called with (steps done, steps in all): a step is a batch, then a layer.
        sess_options: The user's onnxruntime.SessionOptions.

    Raises:
        CalibrationError: There are too few batches, or one does not fit.
    """
    observed = [plan.layer for plan in graph.plans if plan.quantizes_input]
    refined = [plan for plan in graph.plans if plan.uses_samples]
    if not observed and not refined:
        return make_records(graph.model, graph.plans, Statistics({}))
    if batches is None:
        first = (observed or [plan.layer for plan in refined])[0]
        what = "its input's range is found" if observed else "its codebook is refined"
        raise CalibrationError(
            f"There is no calibration data, and {what} with it.",
            layer=first.name,
            remedy='Give batches, or set act_algo to "none" and refine to "none".',
        )
    batch_num = graph.config.batch_num
    num_layers = len([plan for plan in graph.plans if plan.config is not None]) if refined else 0
    steps = batch_num + num_layers

    def report(done: int, _total: int) -> None:
        if progress is not None:
            progress(done, steps)

    keeper = None
    if refined or range_groups(graph.plans):
        keeper = SampleKeeper(input_specs(create_session(graph.model.ir, sess_options=sess_options)))
    watched: Iterable[Any] = batches if keeper is None else keeper.watch(batches, batch_num)
    if observed:
        statistics = sweep(
            graph.model,
            observed,
            watched,
            batch_num,
            by_channel=balanced_tensors(graph.plans),
            progress=report,
            sess_options=sess_options,
        )
    else:
        statistics = Statistics({})
        _read_all(iter(watched), batch_num, report)
    graph, statistics = balance(graph, statistics)
    choices = None
    if keeper is not None and range_groups(graph.plans):
        choices = choose_ranges(graph.model, graph.plans, statistics, keeper.feeds, sess_options=sess_options)
    records = make_records(graph.model, graph.plans, statistics, choices)
    if keeper is None or not refined:
        return records
    return refine_layers(
        graph.model,
        graph.plans,
        records,
        keeper.feeds,
        progress=lambda done, total: report(batch_num + done, total),
        sess_options=sess_options,
    )


def _read_all(batches: Iterator[Any], batch_num: int, report: Progress) -> None:
    count = 0
    for _ in batches:
        count += 1
        report(count, batch_num)
        if count == batch_num:
            return
    raise CalibrationError(
        f"The number of given data batches is not enough: batch_num is {batch_num}, but there were only {count}.",
        remedy="Give more batches, or lower batch_num in the config.",
    )
