"""Many items cut into batches of a fixed size, and the results put together again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError

__all__ = ["join_batches", "split_batches"]

Arrays = dict[str, npt.NDArray[np.float32]]


def split_batches(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[tuple[Arrays, int]]:
    """Cut arrays into batches; the last one is filled up with zeros.

    Args:
        inputs: Input -> array, all of one length.
        sizes: Input -> items in a batch, the same for all.

    Yields:
        The batch, and how many of its items are real.

    Raises:
        ParameterError: The lengths or the batch sizes differ, or there is no item.

    Example:
        >>> [(batch["x"].tolist(), used) for batch, used in split_batches({"x": [1, 2, 3]}, {"x": 2})]
        [([1.0, 2.0], 2), ([3.0, 0.0], 1)]
    """
    arrays = {name: np.asarray(values, np.float32) for name, values in inputs.items()}
    lengths, steps = {len(array) for array in arrays.values()}, set(sizes.values())
    if len(lengths) != 1 or len(steps) != 1 or 0 in lengths:
        raise ParameterError(
            "Inputs must have the same number of items, at least one, and the network one batch size for all. "
            f"Got {sorted(lengths)} items and batch sizes {dict(sizes)}."
        )
    length, step = lengths.pop(), steps.pop()
    for start in range(0, length, step):
        used = min(step, length - start)
        batch = {name: array[start : start + used] for name, array in arrays.items()}
        if used < step:
            batch = {name: _filled_up(array, step) for name, array in batch.items()}
        yield batch, used


def join_batches(parts: Sequence[Arrays]) -> Arrays:
    """Put the batches' results together along their first axis.

    Example:
        >>> join_batches([{"y": np.zeros(2, np.float32)}, {"y": np.ones(1, np.float32)}])["y"].tolist()
        [0.0, 0.0, 1.0]
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _filled_up(array: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.float32]:
    padding = np.zeros((length - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, padding])
