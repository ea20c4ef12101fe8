"""The first batches of a calibration in a file, for what is measured on samples when the calibration is over."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.feeds import Feed
from amct_lite.errors import FileError
from amct_lite.files.atomic import write_bytes_atomically
from amct_lite.files.npz import json_array, json_of, npz_arrays, npz_bytes

__all__ = ["MAX_KEPT_SAMPLES", "KeptBatches", "load_batches"]

# Enough to rank layers by; a file of 224 x 224 images then takes some 20 MB.
MAX_KEPT_SAMPLES = 32


class KeptBatches:
    """Takes batches in as they pass, whole ones, until there are enough samples."""

    def __init__(self) -> None:
        self._feeds: list[Feed] = []
        self._num_samples = 0

    def add(self, feed: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep a copy of a batch, unless there are enough samples."""
        if self._num_samples >= MAX_KEPT_SAMPLES:
            return
        self._feeds.append({name: np.array(values) for name, values in feed.items()})
        first = next(iter(feed.values()), None)
        self._num_samples += first.shape[0] if first is not None and first.ndim else 1

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        arrays = {"names": json_array([list(feed) for feed in self._feeds])}
        for number, feed in enumerate(self._feeds):
            arrays.update({f"{number}.{index}": values for index, values in enumerate(feed.values())})
        write_bytes_atomically(path, npz_bytes(arrays))


def load_batches(path: Path) -> Sequence[Feed]:
    """The batches of a file.

    Raises:
        FileError: It cannot be read.
    """
    try:
        arrays = npz_arrays(path)
        names = json_of(arrays["names"])
        return [
            {name: arrays[f"{number}.{index}"] for index, name in enumerate(feed)} for number, feed in enumerate(names)
        ]
    except Exception as error:  # numpy, zipfile, zlib and json raise many kinds on damaged files
        raise FileError(
            f"The file of calibration samples {path} cannot be read: {error}.",
            remedy="Delete it and the statistics beside it, and calibrate again.",
        ) from error
