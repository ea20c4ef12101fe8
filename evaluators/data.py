"""Sources of batches: what an evaluator reads its samples and labels from."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from amct_lite.errors import FileError, ParameterError
from amct_lite.evaluators.parameters import checked_count

__all__ = [
    "ArrayData",
    "Batches",
    "DataSource",
    "Inputs",
    "Labels",
    "accepted_classes",
    "as_data_source",
    "data_digest",
]

Inputs: TypeAlias = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]
"""One array for a model with one input, or an array per input name; axis 0 counts the samples."""

Labels: TypeAlias = npt.NDArray[np.integer] | Sequence[int | Sequence[int]]
"""A class index per sample, or several where more than one class is right."""

NO_CLASS = -1
"""Fills the rows of samples that accept fewer classes than others; no network output has this index."""

LABELS_KEY = "labels"


# The seam for data that lies elsewhere (a database, TFRecords): three members, no base class to inherit.
@runtime_checkable
class DataSource(Protocol):
    """Samples in a fixed order, read in slices, so that they never need to be in memory all at once."""

    @property
    def accepted(self) -> npt.NDArray[np.int64] | None:
        """The right classes, shape (samples, most accepted), filled up with -1; None without labels."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def read(self, start: int, stop: int) -> Inputs:
        """Return samples start to stop - 1, the same ones on every call."""


class ArrayData:
    """Samples in arrays.

    Any numeric dtype goes: an evaluator casts to what the model's input takes (uint8 pixels to float32, say),
    as long as no value changes its meaning. Memory-mapped arrays stay on disk until their batch is read.

    Args:
        inputs: One array, or a dict of input name to array; axis 0 counts the samples.
        labels: A class index per sample (or a sequence of the classes that are right), or None.

    Raises:
        ParameterError: An array is not numeric, lengths differ, or a label is no class index.

    Example:
        >>> data = ArrayData(np.zeros((3, 4), np.float32), labels=[0, 1, (1, 2)])
        >>> len(data), data.read(1, 3).shape
        (3, (2, 4))
    """

    def __init__(self, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike], labels: Labels | None = None) -> None:
        self.arrays, self.is_named = checked_arrays(inputs)
        self.num_samples = len(next(iter(self.arrays.values())))
        self.accepted = None if labels is None else accepted_classes(labels, self.num_samples)

    @classmethod
    def from_npz(cls, file: str | Path) -> Self:
        """Read an `.npz` file.

        Args:
            file: Its key `labels` (optional) holds a class index per sample. Every other key holds a model
                input of that name; where there is only one, it goes to the model's only input, whatever the
                names.

        Returns:
            The data. Pickled objects in the file are refused.

        Raises:
            FileError: The file is missing or no npz file of plain arrays.
            ParameterError: The arrays do not belong together.
        """
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
            raise FileError(
                f"{file} cannot be read as an npz file of plain arrays: {error}",
                remedy="Write it with numpy.savez(file, inputs, labels=labels).",
            ) from error
        labels = arrays.pop(LABELS_KEY, None)
        if not arrays:
            raise FileError(
                f"{file} has no array beside {LABELS_KEY!r}.",
                remedy="Add the model's inputs, one array each.",
            )
        return cls(arrays if len(arrays) > 1 else next(iter(arrays.values())), labels)

    def __len__(self) -> int:
        return self.num_samples

    def read(self, start: int, stop: int) -> Inputs:
        """Return samples start to stop - 1."""
        cut = {name: np.asarray(array[start:stop]) for name, array in self.arrays.items()}
        return cut if self.is_named else cut[""]

    def select(self, samples: slice | Sequence[int]) -> "ArrayData":
        """Return a part of the data, for example a calibration part with `select(slice(0, 64))`."""
        chosen = np.arange(self.num_samples)[samples]
        part = {name: array[chosen] for name, array in self.arrays.items()}
        selected = ArrayData(part if self.is_named else part[""])
        selected.accepted = None if self.accepted is None else self.accepted[chosen]
        return selected


class Batches:
    """The inputs of a source, batch by batch, as `amct_lite.calibrate` takes them; may be iterated again.

    Args:
        data: The source.
        batch_size: Samples per batch; the last batch may have fewer.
        batch_num: How many batches; None for all.

    Example:
        >>> [len(batch) for batch in Batches(ArrayData(np.zeros((5, 2))), batch_size=2)]
        [2, 2, 1]
    """

    def __init__(self, data: DataSource, batch_size: int = 32, batch_num: int | None = None) -> None:
        self.data = data
        self.batch_size: int = checked_count("Batches", "batch_size", batch_size)
        available = -(-len(data) // self.batch_size)
        self.batch_num: int = (
            available if batch_num is None else min(available, checked_count("Batches", "batch_num", batch_num))
        )

    def __len__(self) -> int:
        return self.batch_num

    def __iter__(self) -> Iterator[Inputs]:
        for index in range(self.batch_num):
            start = index * self.batch_size
            yield self.data.read(start, min(start + self.batch_size, len(self.data)))


def data_digest(data: DataSource) -> str:
    """Digest a source's samples and labels, read once through, so that a search knows when they have changed.

    Returns:
        SHA-256, in hex.

    Example:
        >>> data_digest(ArrayData(np.zeros((2, 3)))) == data_digest(ArrayData(np.ones((2, 3))))
        False
    """
    digest = hashlib.sha256(repr(None if data.accepted is None else data.accepted.tolist()).encode())
    for batch in Batches(data):
        named = batch if isinstance(batch, Mapping) else {"": batch}
        for name, array in named.items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def as_data_source(data: Any) -> DataSource:
    """Take a source as it is, and make one of an array, a dict of arrays, or the path of an npz file.

    Args:
        data: What the user gave.

    Returns:
        The source.

    Raises:
        ParameterError: It is none of these.
    """
    if isinstance(data, DataSource):
        source: DataSource = data
        return source
    if isinstance(data, np.ndarray | Mapping):
        return ArrayData(data)
    if isinstance(data, str | Path) and Path(data).suffix == ".npz":
        return ArrayData.from_npz(data)
    raise ParameterError(
        "The 'data' parameter of an evaluator must be a data source, an array, a dict of arrays or the path"
        f" of an .npz file. Got {str(data) if isinstance(data, str | Path) else type(data)!r} instead.",
        remedy="Use ArrayData(inputs, labels), or ImageData.from_folder(folder, preprocessing=...).",
    )


def accepted_classes(labels: Labels, num_samples: int) -> npt.NDArray[np.int64]:
    """Bring labels into one array.

    Args:
        labels: A class index per sample, or a sequence of indices where several classes are right.
        num_samples: How many labels there must be.

    Returns:
        int64 array, shape (num_samples, most accepted), rows filled up with -1.

    Raises:
        ParameterError: Their number is not `num_samples`, or one is not a whole number >= 0.

    Example:
        >>> accepted_classes([4, (1, 2)], 2).tolist()
        [[4, -1], [1, 2]]
    """
    if len(labels) != num_samples:
        raise ParameterError(
            f"There are {len(labels)} labels for {num_samples} samples.", remedy="Give one label per sample."
        )
    rows: list[tuple[Any, ...]] = [
        tuple(label) if isinstance(label, tuple | list | set | frozenset) else (label,) for label in labels
    ]
    for sample, row in enumerate(rows):
        if not row or not all(is_class_index(label) for label in row):
            raise ParameterError(
                f"The label of sample {sample} must be a class index >= 0 or several. Got {labels[sample]!r} instead.",
                remedy="Turn one-hot rows into indices with labels.argmax(axis=1).",
            )
    accepted = np.full((num_samples, max(map(len, rows))), NO_CLASS, np.int64)
    for sample, row in enumerate(rows):
        accepted[sample, : len(row)] = row
    return accepted


def is_class_index(label: Any) -> bool:
    """Say whether a label is a whole number >= 0."""
    return isinstance(label, int | np.integer) and not isinstance(label, bool) and bool(label >= 0)


def checked_arrays(inputs: Any) -> tuple[dict[str, npt.NDArray[Any]], bool]:
    """Return the arrays by name ("" for a single one without a name) and whether they came with names."""
    is_named = isinstance(inputs, Mapping)
    given = inputs if is_named else {"": inputs}
    arrays = {name: array if isinstance(array, np.ndarray) else np.asarray(array) for name, array in given.items()}
    for name, array in arrays.items():
        what = f"The inputs array {name!r}" if is_named else "The inputs array"
        if array.dtype.kind not in "biuf":
            raise ParameterError(
                f"{what} must be numeric. Its dtype is {array.dtype}.", remedy="Convert it with astype."
            )
        if array.ndim == 0 or len(array) == 0:
            raise ParameterError(
                f"{what} has no samples: its shape is {array.shape}.", remedy="Axis 0 must count the samples."
            )
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ParameterError(
            f"The inputs arrays must have the same number of samples, at least one. Got {lengths} instead."
        )
    return arrays, is_named
