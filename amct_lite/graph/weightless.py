"""A model's protobuf without its big weights, for the tools of the onnx package that only want the structure.

Those tools serialise what they are given: weights would be copied, and a protobuf holds 2 GB at most.
"""

import onnx
import onnx_ir as ir

from amct_lite.graph.cloning import make_self_contained

__all__ = ["SMALL_TENSOR_BYTES", "restore_weights", "weightless_proto"]

# Shapes, axes and scales stay in: inference and version conversion read their numbers.
SMALL_TENSOR_BYTES = 1024


def weightless_proto(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Serialise a model with its big initializers turned into graph inputs; the model itself stays as it is.

    Args:
        model: Any model; its big initializers are not read.

    Returns:
        The protobuf, and the tensors left out by name (those of overridable initializers are graph inputs
        in the model as well).
    """
    copy = model.clone()
    weights: dict[str, ir.TensorProtocol] = {}
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= SMALL_TENSOR_BYTES:
            continue
        weights[name] = tensor
        del copy.graph.initializers[name]
        value.shape = ir.Shape(tensor.shape.numpy())
        value.type = ir.TensorType(tensor.dtype)
        if not value.is_graph_input():
            copy.graph.inputs.append(value)
    make_self_contained(copy)
    proto: onnx.ModelProto = ir.to_proto(copy)
    return proto, weights


def restore_weights(model: ir.Model, weights: dict[str, ir.TensorProtocol], input_names: set[str]) -> None:
    """Undo `weightless_proto` on a model made from its protobuf.

    Args:
        model: The model, changed in place.
        weights: The tensors that were left out, by name.
        input_names: The graph inputs of the original; all other inputs were weights.
    """
    graph = model.graph
    for value in list(graph.inputs):
        tensor = weights.get(value.name or "")
        if tensor is None:
            continue
        if value.name not in input_names:
            graph.inputs.remove(value)
        value.const_value = tensor
        graph.register_initializer(value)
