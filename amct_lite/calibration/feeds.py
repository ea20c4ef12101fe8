"""Batches of the user's, checked against the model's inputs before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.errors import CalibrationError

__all__ = ["Feed", "InputSpec", "as_array", "input_specs", "to_feed", "too_few_batches"]

Feed = dict[str, npt.NDArray[Any]]

_NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class InputSpec:
    """What a model wants at one input: its name, numpy type name, and shape (None where a size is free)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


def input_specs(session: Any) -> tuple[InputSpec, ...]:
    """The inputs of an onnxruntime session."""
    specs = []
    for item in session.get_inputs():
        shape = None if item.shape is None else tuple(s if isinstance(s, int) else None for s in item.shape)
        specs.append(InputSpec(item.name, _NUMPY_TYPES.get(item.type, item.type), shape))
    return tuple(specs)


def to_feed(batch: Any, specs: Sequence[InputSpec], number: int) -> Feed:
    """Turn one batch into a feed.

    Args:
        batch: An array for a model with one input, or a dict from input name to array.
        specs: The model's inputs.
        number: The batch's number from 1, for the messages.

    Returns:
        Input name -> array, in the order of the model's inputs.

    Raises:
        CalibrationError: An input is missing, unknown, or of the wrong type or shape.
    """
    if isinstance(batch, Mapping):
        feed = {str(name): as_array(values, number) for name, values in batch.items()}
    elif len(specs) == 1:
        feed = {specs[0].name: as_array(batch, number)}
    else:
        names = ", ".join(spec.name for spec in specs)
        raise CalibrationError(
            f"Batch {number} is one array, but the model has {len(specs)} inputs: {names}.",
            remedy="Give each batch as a dict from input name to array.",
        )
    known = {spec.name for spec in specs}
    unknown = sorted(set(feed) - known)
    if unknown:
        raise CalibrationError(
            f"Batch {number} has the input {unknown[0]!r}, which the model does not have.",
            remedy=f"The model's inputs are: {', '.join(sorted(known))}.",
        )
    for spec in specs:
        _check(spec, feed, number)
    return {spec.name: feed[spec.name] for spec in specs}


def too_few_batches(batch_num: int, given: int) -> CalibrationError:
    """The error for data that ends too early."""
    return CalibrationError(
        f"The number of given data batches is not enough: batch_num is {batch_num}, but there were only {given}.",
        remedy="Give more batches, or lower batch_num in the config.",
    )


def as_array(values: Any, number: int) -> npt.NDArray[Any]:
    """One input of a batch as an array in the machine's byte order.

    Raises:
        CalibrationError: Its rows have different shapes.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise CalibrationError(
            f"Batch {number} is no array of one shape: {error}",
            remedy="Give each batch as one array, or as a dict from input name to array.",
        ) from error
    # onnxruntime takes the bytes as they are.
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check(spec: InputSpec, feed: Feed, number: int) -> None:
    if spec.name not in feed:
        raise CalibrationError(
            f"Batch {number} lacks the input {spec.name!r}.",
            remedy="Give every input of the model in each batch.",
        )
    values = feed[spec.name]
    if values.dtype.name != spec.dtype:
        raise CalibrationError(
            f"The input {spec.name!r} must be {spec.dtype}; batch {number} has {values.dtype.name}.",
            remedy=f"Convert it with .astype(numpy.{spec.dtype}), preprocessed as the model expects.",
        )
    if spec.shape is None:
        return
    fits = len(values.shape) == len(spec.shape) and all(
        wanted in (None, found) for wanted, found in zip(spec.shape, values.shape, strict=True)
    )
    if not fits:
        wanted_shape = ", ".join("?" if size is None else str(size) for size in spec.shape)
        raise CalibrationError(
            f"The input {spec.name!r} has shape [{wanted_shape}]; batch {number} has {list(values.shape)}.",
            remedy="Give batches of the model's shape.",
        )
