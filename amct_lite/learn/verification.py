"""Before training: the network in PyTorch gives what ONNX Runtime gives, or the first tensor that differs is named."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from amct_lite.errors import AmctError, TrainingError
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import create_session
from amct_lite.learn.batches import run_module, to_device
from amct_lite.learn.torch_graph import TorchGraph

__all__ = ["check_translation", "feed_of"]

Feed = dict[str, npt.NDArray[Any]]

# Of the largest magnitude: sums in another order differ by 1e-6 of it, deep networks by 1e-4.
TOLERANCE = 1e-3


def check_translation(model: Model, inputs: Any) -> None:
    """Run a batch through both.

    Args:
        model: The float network.
        inputs: Of a batch: an array or tensor, a tuple of them, or a dict by name.

    Raises:
        TrainingError: The batch does not fit the network, or the outputs differ; the first tensor that does is named.
    """
    feed = feed_of(model, inputs)
    outputs = [value.name or "" for value in model.ir.graph.outputs]
    if _first_difference(model, outputs, feed) is None:
        return
    between = [value.name or "" for node in model.ir.graph for value in node.outputs if value.name]
    different = _first_difference(model, [name for name in between if _is_read(model.ir, name)], feed)
    raise TrainingError(
        f"PyTorch and ONNX Runtime give different numbers for the first batch, first for the tensor {different!r}.",
        remedy="Quantize the network without training, and report the operator that makes this tensor.",
    )


def feed_of(model: Model, inputs: Any) -> Feed:
    """A batch by the names of the network's inputs, cut to as many samples as an input of fixed size takes.

    Raises:
        TrainingError: It has too few or too many arrays, or other names.
    """
    wanted = {value.name or "": value for value in model.ir.graph.inputs if not value.is_initializer()}
    tensors = to_device(inputs, "cpu", inputs=True)
    if not isinstance(tensors, dict):
        listed = tensors if isinstance(tensors, tuple) else (tensors,)
        tensors = dict(zip(wanted, listed, strict=False)) if len(listed) == len(wanted) else {}
    if set(tensors) != set(wanted):
        raise TrainingError(
            f"The network's inputs are {', '.join(wanted)}, and the first batch has {_described(inputs)}.",
            remedy="Give ((first input, second input), labels), or a dict by name in place of the inner tuple.",
        )
    feed = {name: tensor.numpy() for name, tensor in tensors.items()}
    return {name: array[: _fixed_size(wanted[name], array)] for name, array in feed.items()}


def _described(inputs: Any) -> str:
    if isinstance(inputs, dict):
        return ", ".join(map(str, inputs))
    return f"{len(inputs)} arrays" if isinstance(inputs, tuple | list) else "one array"


def _fixed_size(value: ir.Value, array: npt.NDArray[Any]) -> int:
    size = value.shape[0] if value.shape is not None and len(value.shape) else None
    return min(size, len(array)) if isinstance(size, int) and size > 0 else len(array)


def _is_read(model: ir.Model, name: str) -> bool:
    found = [value for node in model.graph for value in node.outputs if value.name == name]
    return any(value.uses() or value.is_graph_output() for value in found)


def _first_difference(model: Model, names: list[str], feed: Feed) -> str | None:
    """The first of some tensors that differs; None where none does."""
    session = create_session(model.ir, extra_outputs=names)
    module = TorchGraph(model, outputs=names).eval()
    try:
        theirs = dict(zip([output.name for output in session.get_outputs()], session.run(None, feed), strict=True))
        with torch.no_grad():
            found = run_module(module, {name: torch.from_numpy(np.array(array)) for name, array in feed.items()})
    except AmctError:
        raise
    except Exception as error:  # both have many kinds for a batch that does not fit
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feed.items())
        raise TrainingError(
            f"The first batch ({shapes}) does not fit the network: {str(error).strip()}",
            remedy="Preprocess it as the network expects, or export the network for batches of any size.",
        ) from error
    ours = dict(zip(names, found if isinstance(found, tuple) else (found,), strict=True))
    return next((name for name in names if not _same(ours[name].numpy(), theirs[name])), None)


def _same(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
    if ours.shape != theirs.shape:
        return False
    if not np.issubdtype(theirs.dtype, np.floating):
        return bool(np.array_equal(ours, theirs))
    largest = float(np.nanmax(np.abs(theirs), initial=0.0))
    return bool(np.allclose(ours, theirs, rtol=0.0, atol=TOLERANCE * max(1.0, largest), equal_nan=True))
