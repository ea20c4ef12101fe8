"""A sweep whose statistics stay in a file: the next calibration of the same model over the same data reads them."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from amct_lite.calibration.feeds import as_array, too_few_batches
from amct_lite.calibration.statistics import Statistics, load_statistics, save_statistics
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import CalibrationError
from amct_lite.graph.model import Model
from amct_lite.types import Layer

__all__ = ["DataDigest", "load_for_layers", "save_with_keys", "sweep_or_reuse"]


def sweep_or_reuse(
    model: Model,
    layers: Sequence[Layer],
    batches: Iterable[Any] | None,
    batch_num: int,
    statistics_file: Path,
    *,
    by_channel: Collection[str] = (),
    **sweep_options: Any,
) -> Statistics:
    """Read the statistics from a file, or sweep and write them where there is no file yet.

    Only what changes the observations counts: the model, the number of batches, the tensors that are observed (a file
    with more of them will do), and the data. Algorithms, bits and the like may change between two uses.

    Args:
        model: The float model.
        layers: The layers whose activations are observed.
        batches: As for `sweep`. Where the file is there, they are read and compared with those it was made from, but
            not run; None takes the file's word.
        batch_num: How many batches to read.
        statistics_file: An .npz file.
        by_channel: The activations that are observed channel by channel too.
        sweep_options: Further parameters of `sweep`.

    Raises:
        CalibrationError: The file was made for something else, which the message names; there is neither file nor
            data; or what `sweep` raises.
        FileError: The file cannot be read or written.
    """
    data = DataDigest()
    if not statistics_file.exists():
        if batches is None:
            raise CalibrationError(
                f"There is no calibration data, and no statistics file {statistics_file} either.",
                remedy="Give batches, or the file of an earlier calibration.",
            )
        statistics = sweep(model, layers, data.watch(batches), batch_num, by_channel=by_channel, **sweep_options)
        save_with_keys(statistics, statistics_file, model.digest, batch_num, data)
        return statistics
    if batches is None:
        return load_for_layers(statistics_file, model, layers, batch_num, by_channel=by_channel)
    given = sum(1 for _ in data.watch(islice(batches, batch_num)))
    if given < batch_num:
        raise too_few_batches(batch_num, given)
    return load_for_layers(statistics_file, model, layers, batch_num, data, by_channel=by_channel)


def save_with_keys(
    statistics: Statistics, statistics_file: Path, model_digest: str, batch_num: int, data: "DataDigest"
) -> None:
    """Write statistics with all that they depend on."""
    save_statistics(statistics, statistics_file, _keys(model_digest, batch_num, data))


def load_for_layers(
    statistics_file: Path,
    model: Model,
    layers: Sequence[Layer],
    batch_num: int,
    data: "DataDigest | None" = None,
    *,
    by_channel: Collection[str] = (),
) -> Statistics:
    """Read statistics that are there, of some layers at least.

    Args:
        statistics_file: An .npz file.
        model: The float model.
        layers: The layers whose activations must be in it.
        batch_num: The number of batches that it must have been made from.
        data: Digest of the batches; None takes the file's word.
        by_channel: The activations that must have been observed channel by channel too.

    Raises:
        CalibrationError: The file was made for something else, which the message names.
        FileError: The file cannot be read.
    """
    statistics = load_statistics(statistics_file, _keys(model.digest, batch_num, data))
    stored = statistics.tensors
    for layer in layers:
        if stored.get(layer.activation) != layer.channel_axis:
            raise CalibrationError(
                f"The statistics file {statistics_file} was made for another config: it lacks this layer's input"
                f" {layer.activation!r}.",
                layer=layer.name,
                remedy="Delete it and calibrate again, or leave the layer out with skip_layers.",
            )
        if layer.activation in by_channel and layer.activation not in statistics.by_channel:
            raise CalibrationError(
                f"The statistics file {statistics_file} was made for another config: it has this layer's input"
                f" {layer.activation!r} not channel by channel, which balancing needs.",
                layer=layer.name,
                remedy="Delete it and calibrate again, or delete dmq_balancer_param.",
            )
    return statistics


def _keys(model_digest: str, batch_num: int, data: "DataDigest | None") -> dict[str, str]:
    keys = {"model": model_digest, "batch_num": str(batch_num)}
    return keys if data is None else {**keys, "calibration data": data.hexdigest()}


class DataDigest:
    """A digest of batches as they pass by; an array and a dict of this one array are the same."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches, taken in as they pass."""
        for number, batch in enumerate(batches, 1):
            self.add(batch, number)
            yield batch

    def add(self, batch: Any, number: int) -> None:
        """Take in a batch; its number is for messages."""
        named = dict(batch) if isinstance(batch, Mapping) else {"": batch}
        for name in sorted(named):
            values = np.ascontiguousarray(as_array(named[name], number))
            label = name if len(named) > 1 else ""
            self._sha256.update(f"{label!r} {values.dtype.name} {values.shape}".encode())
            self._sha256.update(values.data if values.size else b"")

    def hexdigest(self) -> str:
        """The digest, in hex, of all batches so far."""
        return self._sha256.hexdigest()
