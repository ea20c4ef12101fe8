"""Labelled batches: arrays in an order that seed and epoch decide, and whatever else the user iterates over."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from amct_lite.errors import ParameterError

__all__ = ["ArrayBatches", "begin_epoch", "first_and_all", "run_module", "to_device"]

Array = npt.NDArray[Any]
Augment = Callable[[Array, np.random.Generator], Array]


class ArrayBatches:
    """Batches of arrays, in another order in each epoch that depends on seed and epoch alone.

    Example:
        >>> batches = ArrayBatches(np.arange(4.0), np.arange(4), batch_size=3, seed=1)
        >>> [labels.tolist() for _, labels in batches]
        [[2, 0, 1], [3]]
        >>> batches.set_epoch(2)
        >>> [labels.tolist() for _, labels in batches]
        [[3, 1, 0], [2]]
    """

    def __init__(
        self,
        inputs: Array | Sequence[Array],
        labels: Array,
        batch_size: int = 64,
        *,
        shuffle: bool = True,
        seed: int = 0,
        augment: Augment | None = None,
    ) -> None:
        """Cut arrays into batches.

        Args:
            inputs: An array whose first axis runs over samples, or a tuple of them for a network of several inputs.
            labels: As many labels.
            batch_size: Samples of a batch; the last one has what is left.
            shuffle: Whether the order changes from epoch to epoch.
            seed: Of the order and of what `augment` draws.
            augment: (inputs of a batch, generator) -> changed inputs; called with the first input only.

        Raises:
            ParameterError: The arrays are not equally long, or empty.
        """
        self.inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (np.asarray(inputs),)
        self.labels = labels
        if not len(labels) or any(len(array) != len(labels) for array in self.inputs):
            lengths = ", ".join(str(len(array)) for array in self.inputs)
            raise ParameterError(
                f"Inputs and labels of ArrayBatches must be equally long and not empty. Got {lengths} inputs and"
                f" {len(labels)} labels."
            )
        if batch_size < 1:
            raise ParameterError(f"The 'batch_size' parameter of ArrayBatches must be at least 1. Got {batch_size}.")
        self.batch_size, self.shuffle, self.seed, self.augment = batch_size, shuffle, seed, augment
        self._epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        generator = np.random.default_rng([self.seed, self._epoch])
        order = generator.permutation(len(self.labels)) if self.shuffle else np.arange(len(self.labels))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            first, *others = (array[chosen] for array in self.inputs)
            if self.augment is not None:
                first = self.augment(first, generator)
            yield (first, *others) if others else first, self.labels[chosen]


def first_and_all(batches: Iterable[Any], epochs: int) -> tuple[Any, Iterable[Any]]:
    """The first batch, and what to iterate over instead of the batches now that it was looked at.

    Raises:
        ParameterError: There is none; it is no pair; or they can be iterated once only and there are several epochs.
    """
    iterator = iter(batches)
    once = iterator is batches
    if once and epochs > 1:
        raise ParameterError(
            f"The 'batches' parameter of fit can be iterated once only, and there are {epochs} epochs.",
            remedy="Give a list, a DataLoader, ArrayBatches, or an object whose __iter__ begins anew each time.",
        )
    first = next(iterator, None)
    if first is None:
        raise ParameterError("The 'batches' parameter is empty.", remedy="Give (inputs, labels) pairs.")
    if not isinstance(first, tuple | list) or len(first) != 2:
        raise ParameterError(
            f"Each batch must be a pair (inputs, labels). Got {type(first).__name__} instead.",
            remedy="For several inputs give a tuple or a dict of them as the first of the two.",
        )
    return first, chain([first], iterator) if once else batches


def begin_epoch(batches: Iterable[Any], number: int) -> None:
    """Tell batches, or the sampler of a DataLoader, the epoch that begins, where they want to know."""
    for wanting in (batches, getattr(batches, "sampler", None)):
        set_epoch = getattr(wanting, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(number)


def to_device(values: Any, device: Any, *, inputs: bool = False) -> Any:
    """Arrays, tensors and numbers as tensors on a device; tuples, lists and dicts of them as such.

    Args:
        values: What a batch holds.
        device: PyTorch's device.
        inputs: Whether they are a network's inputs: floats of 64 bits become those of 32 that it computes with.
    """
    if isinstance(values, dict):
        return {name: to_device(value, device, inputs=inputs) for name, value in values.items()}
    if isinstance(values, tuple | list):
        return tuple(to_device(value, device, inputs=inputs) for value in values)
    tensor = torch.as_tensor(values)
    if inputs and tensor.dtype == torch.float64:
        tensor = tensor.float()
    return tensor.to(device)


def run_module(module: Any, inputs: Any) -> Any:
    """A module's outputs on the inputs of a batch: one tensor, a tuple in the network's order, or a dict by name."""
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)
