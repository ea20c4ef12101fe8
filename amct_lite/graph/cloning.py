"""Copies of a graph that can be edited while the weights are shared."""

import onnx_ir as ir

from amct_lite.graph.constants import all_graphs

__all__ = ["clone_ir", "clone_self_contained", "make_self_contained"]


def clone_ir(model: ir.Model) -> ir.Model:
    """Return an independent copy of a model whose weight tensors, which are immutable, are shared.

    Args:
        model: Any model; it is not changed.

    Example:
        >>> text = 'g (float[1] x) => (float[1] y) {y = Relu(x)}'
        >>> model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 13]>' + text)
        >>> clone_ir(model).graph is model.graph
        False
    """
    copy = model.clone()
    for graph in all_graphs(copy.graph):
        for value in (*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)):
            # onnx_ir shares the type objects, and setting `value.dtype` would write through to the original.
            if isinstance(value.type, ir.TensorType):
                value.type = ir.TensorType(value.type.dtype, denotation=value.type.denotation)
    return copy


def clone_self_contained(model: ir.Model) -> ir.Model:
    """Return a copy that serialises without references to other files, all numbers as raw data.

    No array is copied: external data stays memory-mapped until it is serialised.

    Args:
        model: Any model; it is not changed.
    """
    copy = model.clone()
    make_self_contained(copy)
    return copy


def make_self_contained(copy: ir.Model) -> None:
    """Replace, in place, every tensor that would not be serialised as raw data; see `clone_self_contained`.

    Args:
        copy: A model of which the caller is the only owner.
    """
    for graph in all_graphs(copy.graph):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _self_contained(value.const_value)
            if not value.is_graph_input():
                # Else the file would state type and shape of each weight twice.
                value.type = None
                value.shape = None
    for nodes in (copy.graph.all_nodes(), *(function.all_nodes() for function in copy.functions.values())):
        for node in nodes:
            for attribute in list(node.attributes.values()):
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes.add(ir.AttrTensor(attribute.name, _self_contained(attribute.as_tensor())))
                elif attribute.type == ir.AttributeType.TENSORS:
                    tensors = [_self_contained(tensor) for tensor in attribute.as_tensors()]
                    node.attributes.add(ir.AttrTensors(attribute.name, tensors))


def _self_contained(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.dtype == ir.DataType.STRING:
        return tensor
    if isinstance(tensor, ir.TensorProtoTensor) and tensor.raw is not None and tensor.raw.HasField("raw_data"):
        return tensor
    if isinstance(tensor, ir.Tensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)
