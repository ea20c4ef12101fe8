"""Run a model over a data source: fit each batch to the model's inputs, and check what comes out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from amct_lite.errors import EvaluatorError, ParameterError
from amct_lite.evaluators.data import DataSource, Inputs

__all__ = ["ScoredBatch", "iterate_scores"]

ELEMENT_TYPES: dict[str, type[np.generic]] = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}
"""ONNX Runtime's names of element types, and numpy's."""


class Port(Protocol):
    """An input or output as ONNX Runtime describes it."""

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class ScoredBatch:
    """What a model makes of one batch.

    Attributes:
        start: Index of the batch's first sample in the source.
        scores: float32 array, shape (samples, classes): logits or probabilities.
    """

    start: int
    scores: npt.NDArray[np.float32]


def iterate_scores(
    model_file: str,
    weights_file: str | None,
    data: DataSource,
    *,
    batch_size: int,
    batch_num: int,
    output: str | None = None,
) -> Iterator[ScoredBatch]:
    """Run a model over the first batches of the data.

    A model whose input has a fixed batch gets batches of exactly that size; the last one is filled up with
    copies of its own samples, and what comes out for these is dropped.

    Args:
        model_file: An ONNX file, or a prototxt; a calibration model records ranges as it runs.
        weights_file: The caffemodel of a prototxt; None for ONNX.
        data: The samples.
        batch_size: Samples per batch where the model leaves it open.
        batch_num: How many batches; the data's end comes first where it has fewer.
        output: Name of the output with one score per class; None takes the first.

    Yields:
        The scores, batch by batch.

    Raises:
        EvaluatorError: The data does not fit the model, or its output is not one finite score per class.
    """
    # Imported here: evaluators are to load fast, and this pulls in ONNX Runtime.
    from amct_lite.session import InferenceSession

    session: Any = InferenceSession(str(model_file), weights_file)
    ports: list[Port] = list(session.get_inputs())
    output = chosen_output(session, output, model_file)
    size = fixed_batch(ports) or batch_size
    stop = min(batch_num * size, len(data))
    for start in range(0, stop, size):
        end = min(start + size, stop)
        feed = fitted_feed(data.read(start, end), ports, fixed_batch(ports), model_file)
        scores = np.asarray(session.run([output], feed)[0])
        yield ScoredBatch(start, checked_scores(scores, end - start, output, model_file))


def fixed_batch(ports: list[Port]) -> int | None:
    """Return the batch size that the inputs prescribe, None where it is open."""
    sizes = {port.shape[0] for port in ports if port.shape and isinstance(port.shape[0], int)}
    return sizes.pop() if len(sizes) == 1 else None  # inputs that disagree: what fails is told when shapes are checked


def fitted_feed(inputs: Inputs, ports: list[Port], batch: int | None, model_file: str) -> dict[str, npt.NDArray[Any]]:
    """Name, fill up and cast a batch's arrays as the model's inputs take them; refuse what does not fit."""
    feed = named_inputs(inputs, ports, model_file)
    for port in ports:
        array = feed[port.name]
        if batch is not None and array.ndim and 0 < len(array) < batch:
            # Copies of real samples, not zeros: a calibration model must see no value that the data does not
            # have.
            array = np.take(array, np.arange(batch) % len(array), axis=0)
        check_shape(array, port, model_file)
        feed[port.name] = cast_array(array, port, model_file)
    return feed


def named_inputs(inputs: Inputs, ports: list[Port], model_file: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays by input name."""
    names = [port.name for port in ports]
    if not isinstance(inputs, dict):
        if len(names) == 1:
            return {names[0]: inputs}
        raise EvaluatorError(
            f"The data is one array, but {model_file} has the inputs {names}.",
            remedy="Give a dict with an array for each input name.",
        )
    if sorted(inputs) != sorted(names):
        raise EvaluatorError(
            f"The data has arrays for {sorted(inputs)}, but {model_file} has the inputs {names}.",
            remedy="Give a dict with an array for each input name and no other.",
        )
    return dict(inputs)


def check_shape(array: npt.NDArray[Any], port: Port, model_file: str) -> None:
    """Refuse a batch whose shape is not the input's; open dimensions fit anything."""
    if fits(array.shape, port.shape):
        return
    remedy = "Reshape the data, or change its resize and crop."
    if array.ndim == 4 and fits(np.moveaxis(array, -1, 1).shape, port.shape):
        remedy = "The channels seem to come last: pass np.moveaxis(inputs, -1, 1)."
    wanted = ", ".join("?" if size is None else str(size) for size in port.shape)
    raise EvaluatorError(
        f"A batch of the data has shape {array.shape}, but the input {port.name!r} of {model_file} takes ({wanted}).",
        remedy=remedy,
    )


def fits(shape: tuple[int, ...], wanted: list[int | str | None]) -> bool:
    """Say whether a shape matches, where a dimension that is no number fits anything."""
    if len(shape) != len(wanted):
        return False
    return all(not isinstance(size, int) or size == have for have, size in zip(shape, wanted, strict=True))


def cast_array(array: npt.NDArray[Any], port: Port, model_file: str) -> npt.NDArray[Any]:
    """Cast to the input's element type where no value changes its meaning (never from float to int)."""
    where = f"the input {port.name!r} of {model_file}"
    if port.type not in ELEMENT_TYPES:
        raise EvaluatorError(
            f"The ready-made evaluators cannot feed {where}, which takes {port.type}.",
            remedy="Write a subclass of AutoNuqEvaluatorBase for it.",
        )
    wanted = np.dtype(ELEMENT_TYPES[port.type])
    if array.dtype.kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        allowed = array.size == 0 or (limits.min <= int(array.min()) and int(array.max()) <= limits.max)
    else:
        allowed = np.can_cast(array.dtype, wanted, "same_kind")
    if not allowed:
        raise EvaluatorError(
            f"The data is {array.dtype}, which cannot become {wanted} for {where} without changing values.",
            remedy=f"Convert it with astype(numpy.{wanted}) if that is meant.",
        )
    return np.ascontiguousarray(array, wanted)


def chosen_output(session: Any, output: str | None, model_file: str) -> str:
    """Return the name of the output to read."""
    names = [str(port.name) for port in session.get_outputs()]
    if output is None:
        return names[0]
    if output not in names:
        raise ParameterError(
            f"The 'output' parameter of an evaluator must be one of {names}, the outputs of {model_file}."
            f" Got {output!r} instead."
        )
    return output


def checked_scores(scores: npt.NDArray[Any], num_samples: int, output: str, model_file: str) -> npt.NDArray[np.float32]:
    """Return the scores of the real samples, shape (num_samples, classes), or say why they are none."""
    where = f"The output {output!r} of {model_file}"
    has_classes = scores.ndim >= 2 and scores.shape[1] >= 2 and scores.size == scores.shape[0] * scores.shape[1]
    if not has_classes or len(scores) < num_samples:
        raise EvaluatorError(
            f"{where} has shape {scores.shape} for {num_samples} samples, which is not one score for each of"
            " two or more classes.",
            remedy="Name the right one with the evaluator's 'output' parameter.",
        )
    real = scores.reshape(scores.shape[:2])[:num_samples].astype(np.float32)
    if not np.isfinite(real).all():
        raise EvaluatorError(
            f"{where} has values that are NaN or infinite.",
            remedy="Check the data for such values, and the float model's own outputs.",
        )
    return real
