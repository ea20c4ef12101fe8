"""A Model as a torch module: its float weights are parameters, its operators those of `learn.operators`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import nn

from amct_lite.errors import ModelError
from amct_lite.graph.cloning import clone_ir
from amct_lite.graph.model import Model
from amct_lite.learn.operators import OPERATORS, Call

__all__ = ["TorchGraph", "unsupported_operators", "with_weights"]

# Inputs that hold weights; constants of other operators (a mean that is subtracted, a shape) stay what they are.
_BATCH_STATISTICS = (3, 4)
_WEIGHT_INPUTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
}


def unsupported_operators(model: ir.Model) -> dict[str, list[str]]:
    """Operators without a translation, with the names of their nodes."""
    found: dict[str, list[str]] = {}
    for node in model.graph:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            found.setdefault(name, []).append(node.name or "")
    return found


class TorchGraph(nn.Module):
    """The network as a torch module, in the graph's order.

    Attributes:
        model: The network that it was made of.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
    """

    def __init__(self, model: Model, *, outputs: Sequence[str] | None = None) -> None:
        """Translate a network.

        Args:
            model: The network; its numbers are copied.
            outputs: Tensors to return in place of the network's outputs; None for those.

        Raises:
            ModelError: It has operators without a translation; all of them are named.
        """
        super().__init__()
        missing = unsupported_operators(model.ir)
        if missing:
            listed = ", ".join(f"{operator} ({', '.join(nodes[:3])})" for operator, nodes in sorted(missing.items()))
            raise ModelError(
                f"The network cannot be trained, for these operators have no translation to PyTorch: {listed}.",
                remedy="Quantize it without training, or export it without them.",
            )
        graph = model.ir.graph
        opset = model.ir.opset_imports.get("", 13) or 13
        self.model = model
        self.inputs = [value.name or "" for value in graph.inputs if not value.is_initializer()]
        self.outputs = [value.name or "" for value in graph.outputs] if outputs is None else list(outputs)
        self._weight_transforms: dict[str, nn.Module] = {}
        self._input_transforms: dict[tuple[str, int], nn.Module] = {}
        spent = _last_uses(list(graph))
        self._nodes = [_Node(node, opset, spent.get(node.name or "", set())) for node in graph]
        self._keys: dict[str, str] = {}
        self._trained = _initializers(model.ir, _WEIGHT_INPUTS)
        self._statistics = _initializers(model.ir, {"BatchNormalization": _BATCH_STATISTICS})
        for number, (name, value) in enumerate(graph.initializers.items()):
            assert value.const_value is not None
            tensor = torch.from_numpy(np.array(value.const_value.numpy()))
            key = self._keys[name] = f"value_{number}"  # torch takes no dots in names
            if name in self._trained:
                self.register_parameter(key, nn.Parameter(tensor))
            else:
                self.register_buffer(key, tensor)

    def parameter(self, initializer: str) -> nn.Parameter:
        """The parameter of an initializer.

        Raises:
            ModelError: It is none that is trained.
        """
        found = getattr(self, self._keys.get(initializer, ""), None)
        if not isinstance(found, nn.Parameter):
            raise ModelError(f"The network has no weight {initializer!r} that is trained.")
        return found

    def transform_weight(self, initializer: str, transform: nn.Module) -> None:
        """Send a weight through a module each time before it is used; the module becomes a part of this one."""
        self.add_module(f"weight_transform_{len(self._weight_transforms)}", transform)
        self._weight_transforms[initializer] = transform

    def transform_input(self, node: str, index: int, transform: nn.Module) -> None:
        """Send an input of a node through a module; the module becomes a part of this one."""
        self.add_module(f"input_transform_{len(self._input_transforms)}", transform)
        self._input_transforms[node, index] = transform

    def numbers(self) -> dict[str, npt.NDArray[np.float32]]:
        """Initializer -> its numbers now, of those that training changes: weights, and statistics of batches."""
        changing = {*self._trained, *self._statistics}
        values = {name: getattr(self, self._keys[name]) for name in self._keys if name in changing}
        return {name: value.detach().cpu().numpy().copy() for name, value in values.items()}

    def quantized_numbers(self) -> dict[str, npt.NDArray[np.float32]]:
        """The same, weights being what their transforms make of them."""
        with torch.no_grad():
            sent = {name: transform(self.parameter(name)) for name, transform in self._weight_transforms.items()}
        return {**self.numbers(), **{name: value.detach().cpu().numpy().copy() for name, value in sent.items()}}

    @contextmanager
    def reading(self, outputs: Sequence[str]) -> Iterator[None]:
        """Return other tensors within a block."""
        before, self.outputs = self.outputs, list(outputs)
        try:
            yield
        finally:
            self.outputs = before

    def follow_batches(self, momentum: float | None) -> None:
        """Let the BatchNormalization that is left in the network follow its batches, or keep its statistics.

        Args:
            momentum: Weight of the newest batch, in (0, 1]; None keeps them, as at the beginning.
        """
        for node in self._nodes:
            node.call.batch_norm_momentum = momentum

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the network.

        Args:
            inputs: Tensors in the order of its inputs.
            named: The same by name.

        Returns:
            Its output, or a tuple of them.
        """
        values: dict[str, Any] = {**dict(zip(self.inputs, inputs, strict=False)), **named}
        for name, key in self._keys.items():
            transform = self._weight_transforms.get(name)
            value = getattr(self, key)
            values[name] = value if transform is None else transform(value)
        for node in self._nodes:
            results = node.run(values, self._input_transforms)
            values.update(zip(node.outputs, results, strict=False))
            for name in node.spent.difference(self.outputs):
                del values[name]
        found = tuple(values[name] for name in self.outputs)
        return found if len(found) > 1 else found[0]


class _Node:
    """One operator, ready to run."""

    def __init__(self, node: ir.Node, opset: int, spent: set[str]) -> None:
        self.call = Call(node, opset)
        self.inputs = [None if value is None else value.name or "" for value in node.inputs]
        self.outputs = [value.name or "" for value in node.outputs]
        self.spent = spent
        self._operator = OPERATORS[node.op_type]

    def run(self, values: Mapping[str, Any], transforms: Mapping[tuple[str, int], nn.Module]) -> tuple[Any, ...]:
        arguments = [None if name is None else values[name] for name in self.inputs]
        for index, argument in enumerate(arguments):
            transform = transforms.get((self.call.name, index))
            if transform is not None:
                arguments[index] = transform(argument)
        result = self._operator(self.call, *arguments)
        return result if isinstance(result, tuple) else (result,)


def _last_uses(nodes: Sequence[ir.Node]) -> dict[str, set[str]]:
    """Node -> the tensors that nobody reads behind it: without gradients their memory comes free there."""
    last = {
        value.name or "": node.name or ""
        for node in nodes
        for value in node.inputs
        if value is not None and value.producer() is not None and not value.is_graph_output()
    }
    found: dict[str, set[str]] = {}
    for value, node in last.items():
        found.setdefault(node, set()).add(value)
    return found


def _initializers(model: ir.Model, inputs: Mapping[str, Sequence[int]]) -> set[str]:
    """Float initializers at these inputs of these operators."""
    names = set()
    for node in model.graph:
        for index in inputs.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None and value.is_initializer() and value.dtype == ir.DataType.FLOAT:
                names.add(value.name or "")
    return names


def with_weights(model: Model, weights: Mapping[str, npt.NDArray[np.float32]]) -> ir.Model:
    """A copy of a network with other numbers in its initializers.

    Args:
        model: The network; it is not changed.
        weights: Initializer -> numbers of the same shape.
    """
    copy = clone_ir(model.ir)
    for name, array in weights.items():
        copy.graph.initializers[name].const_value = ir.Tensor(np.ascontiguousarray(array), name=name)
    return copy
