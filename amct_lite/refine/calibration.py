"""All factors of a planned graph: one sweep over the batches, then the closed loop over the samples kept from it."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from amct_lite.calibration.feeds import too_few_batches
from amct_lite.calibration.reuse import sweep_or_reuse
from amct_lite.calibration.statistics import Statistics
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import CalibrationError
from amct_lite.files.record import LayerRecord
from amct_lite.quantize.balancing import balance, balanced_tensors
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.range_choice import range_groups
from amct_lite.refine.closed_loop import refine_layers
from amct_lite.refine.range_choice import choose_ranges
from amct_lite.refine.samples import SampleKeeper
from amct_lite.refine.shift_bits import with_shift_bits

__all__ = ["find_records"]

Progress = Callable[[int, int], None]


def find_records(
    graph: PlannedGraph,
    batches: Iterable[Any] | None,
    *,
    progress: Progress | None = None,
    sess_options: Any = None,
    n_jobs: int | None = None,
    backend: str | None = None,
    statistics_file: Path | None = None,
) -> dict[str, LayerRecord]:
    """Find the factors of every layer that the plan quantizes.

    Args:
        graph: The planned graph.
        batches: The calibration data; None where nothing needs any.
        progress: Called with (steps done, steps in all): a step is a batch, then a layer.
        sess_options: The user's onnxruntime.SessionOptions.
        n_jobs: Shards of the sweep at once, as `amct_lite.calibration.sweep` takes them.
        backend: Where they run.
        statistics_file: Read instead of sweeping where it exists, written where it does not.

    Raises:
        CalibrationError: There are too few batches, one does not fit, or the statistics file was made for something
            else.
    """
    observed = list(graph.observed_layers)
    refined = [plan for plan in graph.plans if plan.needs_samples or (plan.prefers_samples and batches is not None)]
    shifts, mode = graph.target.shift_bit, graph.config.fakequant_precision_mode
    if not observed and not refined:
        return make_records(graph.model, graph.all_plans, Statistics({}), fakequant_precision_mode=mode)
    reusable = statistics_file is not None and statistics_file.exists() and bool(observed)
    if batches is None and (refined or shifts or not reusable):
        if observed and not reusable:
            first, what = observed[0], "its input's range is found"
        elif refined:
            first, what = refined[0].layer, "it is refined"
        else:
            first, what = observed[0], "its shift_bit is found"
        raise CalibrationError(
            f"There is no calibration data, and {what} with it.",
            layer=first.name,
            remedy='Give batches, or leave inputs float (act_algo "none") and switch off what is refined on samples.',
        )
    batch_num = graph.config.batch_num
    num_layers = len([plan for plan in graph.plans if plan.config is not None]) if refined else 0
    steps = batch_num + num_layers

    def report(done: int, _total: int) -> None:
        if progress is not None:
            progress(done, steps)

    keeper = None
    if batches is not None and (refined or shifts or range_groups(graph.plans)):
        keeper = SampleKeeper.of_model(graph.model.ir, sess_options=sess_options)
    given: Iterable[Any] = () if batches is None else batches
    watched = given if keeper is None else keeper.watch(given, batch_num)
    by_channel = balanced_tensors(graph.plans)
    options = {"progress": report, "sess_options": sess_options, "n_jobs": n_jobs, "backend": backend}
    if not observed:
        statistics = Statistics({})
        _read_all(iter(watched), batch_num, report)
    elif statistics_file is not None:
        data = None if batches is None else watched
        statistics = sweep_or_reuse(
            graph.model, observed, data, batch_num, statistics_file, by_channel=by_channel, **options
        )
    else:
        statistics = sweep(graph.model, observed, watched, batch_num, moments=False, by_channel=by_channel, **options)
    graph, statistics = balance(graph, statistics)
    choices = None
    if keeper is not None and range_groups(graph.plans):
        choices = choose_ranges(graph.model, graph.plans, statistics, keeper.feeds, sess_options=sess_options)
    records = make_records(graph.model, graph.all_plans, statistics, choices, fakequant_precision_mode=mode)
    if keeper is not None and refined:
        records = refine_layers(
            graph.model,
            graph.plans,
            records,
            keeper.feeds,
            progress=lambda done, total: report(batch_num + done, total),
            sess_options=sess_options,
        )
    if keeper is not None and shifts:
        records = with_shift_bits(graph.model, records, keeper.feeds, sess_options=sess_options)
    return records


def _read_all(batches: Iterator[Any], batch_num: int, report: Progress) -> None:
    count = 0
    for _ in batches:
        count += 1
        report(count, batch_num)
        if count == batch_num:
            return
    raise too_few_batches(batch_num, count)
