"""What an operator's translation is given of its node."""

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from amct_lite.errors import ModelError

__all__ = ["Call", "Operator", "integers"]

Operator = Callable[..., Any]
"""(call, *inputs) -> a tensor, or a tuple of them; an input that is left out is None."""


class Call:
    """One node: its attributes, and how to refuse what they ask for.

    Attributes:
        name: The node's name.
        op_type: Its operator.
        num_outputs: How many of its outputs somebody reads, counted up to the last one.
        opset: Version of the operator set.
        batch_norm_momentum: How fast BatchNormalization follows its batches; None where its statistics stay.
    """

    def __init__(self, node: ir.Node, opset: int) -> None:
        self.name = node.name or ""
        self.op_type = node.op_type
        self.opset = opset
        self.batch_norm_momentum: float | None = None
        used = [number for number, value in enumerate(node.outputs, 1) if value.uses() or value.is_graph_output()]
        self.num_outputs = max(used, default=1)
        self._attributes = {name: _plain(value) for name, value in node.attributes.items()}

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as Python has it: a number, a string, a list, an array."""
        return self._attributes.get(name, default)

    def refuse(self, what: str) -> ModelError:
        """The error that names the operator and what of it cannot be trained."""
        return ModelError(
            f"{self.op_type} with {what} has no translation to PyTorch.",
            layer=self.name,
            remedy="Export the network without it, or quantize it without training.",
        )


def integers(values: Any, call: Call, default: Sequence[int] | None = None) -> list[int] | None:
    """A tensor of integers, such as axes or a shape, as a list; the default where it was left out."""
    if values is None:
        return None if default is None else list(default)
    if values.requires_grad:
        raise call.refuse("a shape that is learned")
    return [int(value) for value in values.reshape(-1).tolist()]


def _plain(attribute: ir.Attr) -> Any:
    match attribute.type:
        case ir.AttributeType.TENSOR:
            return attribute.as_tensor().numpy()
        case ir.AttributeType.INTS:
            return list(attribute.as_ints())
        case ir.AttributeType.FLOATS:
            return list(attribute.as_floats())
        case ir.AttributeType.STRING:
            return attribute.as_string()
        case _:
            return attribute.value
