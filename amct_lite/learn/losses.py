"""What training minimises and what it is judged by, where the user gives nothing of his own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from amct_lite.errors import ParameterError
from amct_lite.graph.model import Model

__all__ = ["Distillation", "accuracy", "cross_entropy", "logits_of", "with_distillation"]

Loss = Callable[[Any, Any], Any]
"""(outputs, labels) -> a scalar tensor."""

# What may stand between Softmax and an output without changing the numbers.
_PASSING = ("Identity", "Dropout")


@dataclass(frozen=True)
class Distillation:
    """Learning from the float network beside the labels (Hinton et al. 2015, section 2).

    The loss becomes `loss + weight * T**2 * KL(softmax(float / T) || softmax(outputs / T))`; T**2 keeps gradients of
    one size whatever the temperature. Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network".

    Attributes:
        temperature: T; PocketFlow's tempr_dst has the same default.
        weight: How much it counts against the loss on labels, 1; PocketFlow's loss_w_dst is 4 without T**2.
    """

    temperature: float = 4.0
    weight: float = 1.0


def logits_of(model: Model) -> str | None:
    """The tensor that goes into the Softmax from which the network's only output comes; None where there is none."""
    output, *others = model.ir.graph.outputs
    node = output.producer()
    while node is not None and node.op_type in _PASSING:
        (value, *_) = node.inputs
        node = None if value is None else value.producer()
    if others or node is None or node.op_type != "Softmax" or node.inputs[0] is None:
        return None
    rank = None if node.inputs[0].shape is None else len(node.inputs[0].shape)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return node.inputs[0].name if axis in (1, -1) and (rank == 2 or axis == 1) else None


def cross_entropy(outputs: Any, labels: Any) -> Any:
    """Mean cross-entropy of logits; classes along axis 1, labels as class numbers or as probabilities.

    Raises:
        ParameterError: The network has several outputs.
    """
    _refuse_several(outputs, "cross-entropy", remedy="Give fit a loss.")
    same_kind = labels if labels.is_floating_point() else labels.long().reshape(outputs.shape[:1] + outputs.shape[2:])
    return functional.cross_entropy(outputs, same_kind)


def accuracy(outputs: Any, labels: Any) -> float:
    """The share of samples whose greatest output is their label's.

    Raises:
        ParameterError: The network has several outputs.
    """
    _refuse_several(outputs, "accuracy", remedy="Give a metric.")
    wanted = labels.argmax(1) if labels.is_floating_point() else labels.reshape(outputs.shape[:1] + outputs.shape[2:])
    return float((outputs.argmax(1) == wanted).float().mean())


def _refuse_several(outputs: Any, what: str, *, remedy: str) -> None:
    if not isinstance(outputs, torch.Tensor):
        raise ParameterError(f"The network has {len(outputs)} outputs, and {what} is for one.", remedy=remedy)


def with_distillation(loss: Loss, teacher: Callable[[Any], Any], distillation: Distillation) -> Callable[..., Any]:
    """A loss that counts what the float network says.

    Args:
        loss: On labels.
        teacher: Inputs of a batch -> the float network's logits, without gradients.
        distillation: How.

    Returns:
        (outputs, labels, inputs) -> a scalar tensor.
    """
    temperature = distillation.temperature

    def both(outputs: Any, labels: Any, inputs: Any) -> Any:
        theirs = functional.softmax(teacher(inputs) / temperature, 1)
        ours = functional.log_softmax(outputs / temperature, 1)
        divergence = functional.kl_div(ours, theirs, reduction="batchmean")
        return loss(outputs, labels) + distillation.weight * temperature**2 * divergence

    return both
