"""What one sweep leaves behind for each observed tensor: a histogram, channel moments, and each batch's extremes."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amct_lite.calibration.channel_histograms import ChannelHistograms
from amct_lite.calibration.histogram import Histogram
from amct_lite.calibration.moments import ChannelMoments
from amct_lite.calibration.scratch import Scratch, flat_pieces
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.errors import CalibrationError, FileError, ParameterError
from amct_lite.files.atomic import write_bytes_atomically
from amct_lite.files.npz import json_array, json_of, npz_arrays, npz_bytes
from amct_lite.types import FloatArray, Layer

__all__ = ["Statistics", "load_statistics", "save_statistics", "statistics_digest"]

_FORMAT = 4


class Statistics:
    """Observers of the tensors that a plan needs, fed batch by batch in constant memory but for two numbers a batch.

    Tensors that are to be balanced are observed channel by channel too.

    Args:
        tensors: Tensor to observe -> axis of its channels.
        batches_before: Batches that other statistics see before these do; batches are numbered behind them.
        moments: Whether channel moments are observed, which a search wants and ranges do not.
        by_channel: Those of the tensors that are observed channel by channel too.

    Attributes:
        batches_before: Batches that other statistics see before.
        batches: Number of batches seen.
        samples: Number of samples in them: the sum of the first input's leading sizes.
        tensors: Observed tensor -> axis of its channels.
        has_moments: Whether channel moments are observed.
        by_channel: Those of the tensors that are observed channel by channel too.
    """

    def __init__(
        self,
        tensors: Mapping[str, int],
        batches_before: int = 0,
        *,
        moments: bool = True,
        by_channel: Iterable[str] = (),
    ) -> None:
        self.batches_before = batches_before
        self.batches = 0
        self.samples = 0
        self.tensors = dict(tensors)
        scratch = Scratch()
        self._histograms = {name: Histogram(scratch) for name in tensors}
        self.has_moments = moments
        self._moments = {name: ChannelMoments(axis) for name, axis in tensors.items()} if moments else {}
        self._batch_ranges: dict[str, list[tuple[float, float]]] = {name: [] for name in tensors}
        self._channels = {name: ChannelHistograms(tensors[name]) for name in by_channel}

    @property
    def by_channel(self) -> tuple[str, ...]:
        """The tensors that are observed channel by channel too."""
        return tuple(self._channels)

    @classmethod
    def for_layers(
        cls, layers: Iterable[Layer], *, moments: bool = True, by_channel: Iterable[str] = ()
    ) -> "Statistics":
        """Observers for the activations of some layers."""
        tensors = {layer.activation: layer.channel_axis for layer in layers}
        return cls(tensors, moments=moments, by_channel=by_channel)

    def successor(self, batches_before: int) -> "Statistics":
        """Observers of the same, without anything seen, for batches behind so many others."""
        return Statistics(self.tensors, batches_before, moments=self.has_moments, by_channel=self.by_channel)

    def observe(self, tensor: str, values: FloatArray) -> None:
        """Take in one tensor of one batch.

        Args:
            tensor: Its name.
            values: float array of any shape, empty ones included.

        Raises:
            CalibrationError: It holds NaN or infinite values.
        """
        if not values.size:
            return
        histogram, low, high = self._histograms[tensor], math.inf, -math.inf
        for chunk in self._moments[tensor].adding(values) if self.has_moments else flat_pieces(values):
            try:
                least, largest = histogram.count(chunk)
            except ParameterError as error:
                raise _not_finite(tensor, values, self.batches_before + self.batches + 1) from error
            low, high = min(low, least), max(high, largest)
        self._batch_ranges[tensor].append((low, high))
        if tensor in self._channels:
            self._channels[tensor].update(values)

    def merge(self, other: "Statistics") -> None:
        """Take in what others saw of the same tensors in later batches.

        Histograms merge exactly; the moments are floating-point sums, so their last digits depend on where the batches
        were parted, and `sweep` always parts them alike.
        """
        self.batches += other.batches
        self.samples += other.samples
        for name in self.tensors:
            self._histograms[name].merge(other._histograms[name])
            if self.has_moments:
                self._moments[name].merge(other._moments[name])
            self._batch_ranges[name] += other._batch_ranges[name]
        for name, channels in self._channels.items():
            channels.merge(other._channels[name])

    def histogram(self, layer: Layer) -> Histogram:
        """Histogram of a layer's activation."""
        self._refuse_unseen(layer)
        return self._histograms[layer.activation]

    def snapshot(self, layer: Layer) -> HistogramSnapshot:
        """All that range algorithms look at: the histogram of a layer's activation and the batches' extremes."""
        ranges = np.array(self._batch_ranges.get(layer.activation, []), np.float64).reshape(-1, 2)
        return replace(self.histogram(layer).snapshot(), batch_ranges=ranges)

    def mean_squares(self, layer: Layer) -> FloatArray:
        """Mean square of each channel of a layer's activation, shape (channels,)."""
        self._refuse_unseen(layer)
        if not self.has_moments:
            raise CalibrationError(
                f"This calibration did not observe the channels of its input {layer.activation!r}.",
                layer=layer.name,
                remedy="Calibrate again for the search.",
            )
        return self._moments[layer.activation].mean_square

    def channel_maxima(self, layer: Layer) -> FloatArray:
        """Largest magnitude of each channel of a layer's activation, shape (channels,)."""
        self._refuse_unseen(layer)
        if layer.activation not in self._channels:
            raise CalibrationError(
                f"Its input {layer.activation!r} was not observed channel by channel, which balancing needs.",
                layer=layer.name,
                remedy="Calibrate again with this config.",
            )
        return self._channels[layer.activation].maxima

    def with_divided(self, tensors: Mapping[str, tuple[str, FloatArray]]) -> "Statistics":
        """The same observations and those of further tensors: observed ones, divided channel by channel.

        Args:
            tensors: New tensor -> one that was observed by channel, and its factors, shape (channels,).
        """
        found = Statistics({}, moments=self.has_moments)
        found.batches, found.samples, found._channels = self.batches, self.samples, dict(self._channels)
        found.tensors = {**self.tensors, **{name: self.tensors[source] for name, (source, _) in tensors.items()}}
        found._histograms, found._moments = dict(self._histograms), dict(self._moments)
        found._batch_ranges = dict(self._batch_ranges)
        for name, (source, factors) in tensors.items():
            found._histograms[name] = self._channels[source].divided(factors)
            if self.has_moments:
                found._moments[name] = self._moments[source].divided(factors)
            found._batch_ranges[name] = self._channels[source].divided_batch_ranges(factors)
        return found

    def _refuse_unseen(self, layer: Layer) -> None:
        if layer.activation not in self._histograms:
            raise CalibrationError(
                f"Its input {layer.activation!r} was not observed by this calibration.",
                layer=layer.name,
                remedy="Calibrate again with this config.",
            )


def _not_finite(tensor: str, values: FloatArray, number: int) -> CalibrationError:
    num_nan, num_infinite = int(np.count_nonzero(np.isnan(values))), int(np.count_nonzero(np.isinf(values)))
    return CalibrationError(
        f"The activation {tensor!r} is not finite in batch {number}: {num_nan} NaN and {num_infinite} infinite values"
        f" among the {values.size} to calibrate on.",
        remedy="Check the data's preprocessing, and that the float model is sound on it.",
    )


def save_statistics(statistics: Statistics, path: Path, keys: Mapping[str, str]) -> None:
    """Write statistics to a file.

    Args:
        statistics: What a sweep left behind.
        path: An .npz file.
        keys: What they depend on (digests of model, config, data); asked for again on loading.
    """
    write_bytes_atomically(path, npz_bytes(_to_arrays(statistics, keys)))


def statistics_digest(statistics: Statistics) -> str:
    """A digest of all that was observed: equal for the same batches."""
    digest = hashlib.sha256()
    for name, array in _to_arrays(statistics, {}).items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _to_arrays(statistics: Statistics, keys: Mapping[str, str]) -> dict[str, np.ndarray]:
    head = {
        "format": _FORMAT,
        "batches": statistics.batches,
        "samples": statistics.samples,
        "moments": statistics.has_moments,
        "keys": dict(keys),
        # Pairs, because sorting the keys of an object would part the tensors from the numbers of their arrays.
        "tensors": list(statistics.tensors.items()),
        "by_channel": list(statistics.by_channel),
    }
    arrays: dict[str, np.ndarray] = {"head": json_array(head)}
    for index, name in enumerate(statistics.tensors):
        parts: dict[str, Mapping[str, np.ndarray]] = {
            "histogram": statistics._histograms[name].to_arrays(),
            "moments": statistics._moments[name].to_arrays() if statistics.has_moments else {},
            "batches": {"ranges": np.array(statistics._batch_ranges[name], np.float64).reshape(-1, 2)},
        }
        if name in statistics._channels:
            parts["channels"] = statistics._channels[name].to_arrays()
        for part, state in parts.items():
            arrays.update({f"{index}.{part}.{key}": value for key, value in state.items()})
    return arrays


def load_statistics(path: Path, keys: Mapping[str, str]) -> Statistics:
    """Read statistics, refusing those made for something else.

    Raises:
        FileError: The file cannot be read or is no statistics file.
        CalibrationError: It was made for another model, config or data; the message names what differs.
    """
    try:
        arrays = npz_arrays(path)
        head = json_of(arrays.pop("head"))
        _check_keys(path, {"format": str(head["format"]), **head["keys"]}, {"format": str(_FORMAT), **keys})
        return _from_arrays(head, arrays)
    except CalibrationError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and json raise many kinds on damaged files
        raise FileError(
            f"The statistics file {path} cannot be read: {error}.", remedy="Delete it and calibrate again."
        ) from error


def _check_keys(path: Path, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        if stored.get(name) != value:
            raise CalibrationError(
                f"The statistics file {path} was made for another {name}: {str(stored.get(name))[:12]} there,"
                f" {value[:12]} here.",
                remedy="Delete it and calibrate again, or use the file that belongs to this one.",
            )


def _from_arrays(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Statistics:
    statistics = Statistics(dict(head["tensors"]), moments=head["moments"], by_channel=head.get("by_channel", ()))
    statistics.batches, statistics.samples = head["batches"], head["samples"]
    for index, name in enumerate(statistics.tensors):
        parts: dict[str, dict[str, np.ndarray]] = {"histogram": {}, "moments": {}, "batches": {}, "channels": {}}
        for part, found in parts.items():
            prefix = f"{index}.{part}."
            found.update({key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)})
        statistics._histograms[name] = Histogram.from_arrays(parts["histogram"])
        if statistics.has_moments:
            statistics._moments[name] = ChannelMoments.from_arrays(parts["moments"])
        statistics._batch_ranges[name] = [(float(low), float(high)) for low, high in parts["batches"]["ranges"]]
        if name in statistics._channels:
            statistics._channels[name] = ChannelHistograms.from_arrays(parts["channels"])
    return statistics
