"""The streaming sweep: run batches through the float model and feed the observers, one batch at a time."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from amct_lite.calibration.feeds import Feed, InputSpec, input_specs, to_feed, too_few_batches
from amct_lite.calibration.observed_session import ObservedSession, observe_batch, run_ahead
from amct_lite.calibration.sharding import SHARD_BATCHES, observe_shards
from amct_lite.calibration.statistics import Statistics
from amct_lite.errors import ParameterError
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import create_session
from amct_lite.types import Layer
from amct_lite.workers import Jobs

__all__ = ["sweep"]

Progress = Callable[[int, int], None]


def sweep(
    model: Model,
    layers: Sequence[Layer],
    batches: Iterable[Any],
    batch_num: int,
    *,
    moments: bool = True,
    by_channel: Collection[str] = (),
    progress: Progress | None = None,
    sess_options: Any = None,
    n_jobs: int | None = None,
    backend: str | None = None,
) -> Statistics:
    """Observe the activations of some layers over `batch_num` batches.

    Memory does not grow with the number of batches; the histograms do not depend on how samples are batched, and
    nothing depends on the number of jobs or the backend. A batch is counted while the next one runs.

    Args:
        model: The float model.
        layers: The layers whose activations are observed.
        batches: Arrays, or dicts from input name to array; only the first `batch_num` are read, in this thread.
        batch_num: How many batches to read.
        moments: Whether to observe the moments of each channel as well, which only a search reads.
        by_channel: The activations that are observed channel by channel too, for balancing.
        progress: Called after each batch, or round of shards, with (batches done, batch_num).
        sess_options: onnxruntime.SessionOptions of the user's, for example with a custom-operator library.
        n_jobs: How many shards are observed at once, -1 for as many as there are processors or workers; None for this
            process alone, or for -1 where a backend is named.
        backend: joblib's backend: "loky" (processes; the default with n_jobs), "threading", "dask" or "ray".

    Raises:
        CalibrationError: There are fewer batches than batch_num, a batch does not fit the model, or a worker failed.
        OptionalDependencyError: The backend's package is not installed.
        ParameterError: The backend is unknown, or cannot take these session options.
    """
    jobs = _jobs(n_jobs, backend, sess_options)
    statistics = Statistics.for_layers(layers, moments=moments, by_channel=by_channel)
    graph_inputs = {value.name for value in model.ir.graph.inputs}
    produced = [name for name in statistics.tensors if name not in graph_inputs]
    session = create_session(model.ir, extra_outputs=produced, sess_options=sess_options)
    observed = ObservedSession(session, produced)
    feeds = _feeds(batches, input_specs(session), batch_num)
    report = progress or (lambda _done, _total: None)
    if jobs is None:
        for part in _observe_here(observed, statistics, feeds, lambda done: report(done, batch_num)):
            statistics.merge(part)
    else:
        for part in observe_shards(model, observed, statistics, feeds, jobs):
            statistics.merge(part)
            report(statistics.batches, batch_num)
    if statistics.batches < batch_num:
        raise too_few_batches(batch_num, statistics.batches)
    return statistics


def _jobs(n_jobs: int | None, backend: str | None, sess_options: Any) -> Jobs | None:
    """Where shards run; None for this process alone."""
    if n_jobs in (None, 1) and backend is None:
        return None
    jobs = Jobs(-1 if n_jobs is None else n_jobs, backend or "loky")
    if sess_options is not None and jobs.backend != "threading":
        raise ParameterError(
            f"The backend {jobs.backend!r} runs in other processes, and onnxruntime.SessionOptions cannot be sent"
            " to them.",
            remedy='Leave sess_options out, or use backend="threading".',
        )
    return jobs


def _observe_here(
    observed: ObservedSession, wanted: Statistics, feeds: Iterable[Feed], report: Callable[[int], None]
) -> Iterator[Statistics]:
    """Statistics like those wanted, of batches in a row.

    Moments are sums whose last digits depend on where they are parted, and so they are parted as shards part them.
    """
    part = wanted.successor(0)
    for done, (feed, values) in enumerate(run_ahead(observed.run, feeds, observed.stop), 1):
        observe_batch(part, feed, values)
        # The batch after the next one starts now, and this one's tensors must be gone by then.
        del feed, values
        report(done)
        if part.has_moments and part.batches == SHARD_BATCHES:
            yield part
            part = wanted.successor(done)
    if part.batches:
        yield part


def _feeds(batches: Iterable[Any], specs: Sequence[InputSpec], batch_num: int) -> Iterator[Feed]:
    # Batches are read ahead, and a generator may fill one and the same array again and again.
    lasting = isinstance(batches, list | tuple)
    for number, batch in enumerate(islice(batches, batch_num), 1):
        feed = to_feed(batch, specs, number)
        yield feed if lasting else {name: values.copy() for name, values in feed.items()}
