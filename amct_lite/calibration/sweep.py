"""The streaming sweep: run batches through the float model and feed the observers, one batch at a time."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from amct_lite.calibration.feeds import input_specs, to_feed
from amct_lite.calibration.statistics import Statistics
from amct_lite.errors import CalibrationError
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import create_session
from amct_lite.types import Layer

__all__ = ["observe_batch", "sweep"]

Progress = Callable[[int, int], None]


def sweep(
    model: Model,
    layers: Sequence[Layer],
    batches: Iterable[Any],
    batch_num: int,
    *,
    by_channel: Collection[str] = (),
    progress: Progress | None = None,
    sess_options: Any = None,
) -> Statistics:
    """Observe the activations of some layers over `batch_num` batches.

    Memory does not grow with the number of batches; the result does not depend on how samples are batched.

    Args:
        model: The float model.
        layers: The layers whose activations are observed.
        batches: Arrays, or dicts from input name to array; only the first `batch_num` are read.
        batch_num: How many batches to read.
        by_channel: The activations that are observed channel by channel too, for balancing.
        progress: Called after each batch with (batches done, batch_num).
        sess_options: onnxruntime.SessionOptions of the user's, for example with a custom-operator library.

    Raises:
        CalibrationError: There are fewer batches than batch_num, or a batch does not fit the model.
    """
    statistics = Statistics(Statistics.for_layers(layers).tensors, by_channel)
    graph_inputs = {value.name for value in model.ir.graph.inputs}
    produced = [name for name in statistics.tensors if name not in graph_inputs]
    session = create_session(model.ir, extra_outputs=produced, sess_options=sess_options)
    specs = input_specs(session)
    for batch in batches:
        feed = to_feed(batch, specs, statistics.batches + 1)
        computed = session.run(produced, feed) if produced else []
        observe_batch(statistics, feed, dict(zip(produced, computed, strict=True)))
        if progress is not None:
            progress(statistics.batches, batch_num)
        if statistics.batches == batch_num:
            return statistics
    raise CalibrationError(
        f"The number of given data batches is not enough: batch_num is {batch_num}, but there were only"
        f" {statistics.batches}.",
        remedy="Give more batches, or lower batch_num in the config.",
    )


def observe_batch(
    statistics: Statistics, feed: Mapping[str, npt.NDArray[Any]], values: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Feed the observers with one batch.

    Args:
        statistics: The observers.
        feed: The batch's inputs.
        values: At least the observed tensors that are not inputs.
    """
    for tensor in statistics.tensors:
        statistics.observe(tensor, values[tensor] if tensor in values else feed[tensor])
    statistics.batches += 1
    first = next(iter(feed.values()), None)
    statistics.samples += first.shape[0] if first is not None and first.ndim else 1
