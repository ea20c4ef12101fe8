"""Chains of operators over constants are computed once, here, instead of at every run."""

import logging
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.graph.constants import add_initializer, constant_tensor
from amct_lite.graph.passes.shapes import infer_shapes
from amct_lite.graph.passes.unused import remove_unused
from amct_lite.graph.runtime import create_session

__all__ = ["fold_constants"]

_logger = logging.getLogger(__name__)

# A folded tensor may be larger than what it was computed from only up to this size: shapes, axes and pads
# are far below it, and a file of many layers does not blow up.
_FREE_BYTES = 1024
# Each round folds what the last one made known; real chains need three or four.
_MAX_ROUNDS = 20
_EXCLUDED = (
    frozenset({"Constant", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
    | {"Dropout", "Bernoulli", "Multinomial"}
    | {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
# Their output size depends on numbers, not shapes: they wait until inference can tell it.
_SIZED_BY_VALUE = frozenset(("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "Upsample"))
# What onnxruntime hands over as a numpy array of the same type.
_NUMPY_TYPES = (
    frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL})
    | {ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64}
    | {ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
)
# Types in which quantized and packed weights are stored; unpacking them here would undo the compression.
_STORAGE_PREFIXES = ("UINT", "INT8", "INT4", "INT2", "FLOAT8", "FLOAT4", "FLOAT6")


def fold_constants(model: ir.Model) -> bool:
    """Replace operators whose inputs are all constants by their results, computed by onnxruntime.

    Shape and Size of a tensor of known shape count as constants, and Identity of a constant is the constant.
    Left alone are random operators, operators with subgraphs or of custom domains, quantized and packed
    weights, and results that are bigger than the constants they make superfluous.

    Precondition: constants are initializers, shapes are inferred, the graph is sorted.
    Postcondition: no operator of the main graph that may be folded is left, nor what only those used. Graph
    inputs and outputs are untouched.

    Args:
        model: The model, changed in place.

    Returns:
        Whether something was folded.
    """
    changed = False
    for _ in range(_MAX_ROUNDS):
        aliased = _fold_aliases_and_shapes(model)
        results = _evaluate(model, _candidates(model))
        accepted = _accepted(results)
        for node in accepted:
            _replace(model.graph, node.outputs, results[node])
        if not (aliased or accepted):
            break
        changed = True
        remove_unused(model)
        infer_shapes(model)
    return changed


def _fold_aliases_and_shapes(model: ir.Model) -> bool:
    """Fold Identity of a constant, and Shape and Size of a tensor of known shape: they need no runtime."""
    changed = False
    for node in model.graph:
        if node.domain != "" or not node.inputs or node.inputs[0] is None:
            continue
        source, output = node.inputs[0], node.outputs[0]
        if output.is_graph_output() or not output.uses():
            continue
        if node.op_type == "Identity" and constant_tensor(source) is not None:
            output.replace_all_uses_with(source)
            changed = True
        elif node.op_type in ("Shape", "Size") and source.shape is not None and source.shape.is_static():
            dims = np.array(source.shape.numpy(), dtype=np.int64)
            if node.op_type == "Size":
                result = np.array(dims.prod(), dtype=np.int64)
            else:
                end = node.attributes.get_int("end", len(dims))
                result = dims[node.attributes.get_int("start", 0) : end]
            _replace(model.graph, [output], [result])
            changed = True
    return changed


def _candidates(model: ir.Model) -> list[ir.Node]:
    """The operators that could be computed now, in graph order."""
    chosen: list[ir.Node] = []
    computed: set[ir.Value] = set()
    for node in model.graph:
        if node.domain != "" or node.op_type in _EXCLUDED or not any(node.inputs):
            continue
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            continue
        inputs = [value for value in node.inputs if value is not None]
        if not all(value in computed or _is_plain_constant(value) for value in inputs):
            continue
        if all(_may_compute(value, node, inputs) for value in node.outputs):
            chosen.append(node)
            computed.update(node.outputs)
    return chosen


def _is_plain_constant(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and not tensor.dtype.name.startswith(_STORAGE_PREFIXES)


def _may_compute(output: ir.Value, node: ir.Node, inputs: Iterable[ir.Value]) -> bool:
    """Whether the result is a numpy array of bearable size, judged before it is computed."""
    if output.is_graph_output() or not output.name or output.dtype not in _NUMPY_TYPES:
        return False
    size = _num_bytes(output)
    if size is None:
        return node.op_type not in _SIZED_BY_VALUE
    return size <= max(_FREE_BYTES, sum(_num_bytes(value) or 0 for value in inputs))


def _num_bytes(value: ir.Value) -> int | None:
    if value.const_value is not None:
        return int(value.const_value.nbytes)
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return None
    return int(np.prod(value.shape.numpy(), dtype=np.int64)) * int(value.dtype.itemsize)


def _evaluate(model: ir.Model, nodes: list[ir.Node]) -> dict[ir.Node, list[npt.NDArray[np.generic]]]:
    """Run the operators once, all together, as a graph of their own."""
    if not nodes:
        return {}
    twins: dict[ir.Value, ir.Value] = {}
    leaves: list[ir.Value] = []
    copies = []
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in twins:
                twins[value] = ir.Value(name=value.name, const_value=value.const_value)
                leaves.append(twins[value])
        inputs = [twins[value] if value is not None else None for value in node.inputs]
        copy = ir.Node("", node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
        for value, twin in zip(node.outputs, copy.outputs, strict=True):
            twin.name, twin.type = value.name, value.type
            twins[value] = twin
        copies.append(copy)
    outputs = [twins[value] for node in nodes for value in node.outputs]
    graph = ir.Graph(
        [],
        outputs,
        nodes=copies,
        initializers=leaves,
        opset_imports={"": model.opset_imports[""]},
        name="constants",
    )
    try:
        session = create_session(ir.Model(graph, ir_version=model.ir_version), optimize=False)
        arrays = iter(session.run(None, {}))
    except Exception as error:  # an operator that onnxruntime does not have: the model is as good as before
        _logger.warning("Constants cannot be folded, the model is used without that: %s", error)
        return {}
    return {node: [next(arrays) for _ in node.outputs] for node in nodes}


def _accepted(results: dict[ir.Node, list[npt.NDArray[np.generic]]]) -> list[ir.Node]:
    """Of the computed operators, those whose result may replace them without blowing up the file.

    A big result is worth it only where the constants it was made from have no other use and so disappear.
    """
    accepted = dict(results)
    while True:
        refused = [node for node, arrays in accepted.items() if not _pays(node, arrays, accepted)]
        if not refused:
            return list(accepted)
        for node in refused:
            del accepted[node]


def _pays(
    node: ir.Node,
    arrays: list[npt.NDArray[np.generic]],
    accepted: dict[ir.Node, list[npt.NDArray[np.generic]]],
) -> bool:
    size = sum(array.nbytes for array in arrays)
    if size <= _FREE_BYTES:
        return True
    freed = 0
    for value in {value for value in node.inputs if value is not None}:
        producer = value.producer()
        if producer is not None and producer not in accepted:
            return False
        if value.is_graph_output() or any(use.node not in accepted for use in value.uses()):
            continue
        if producer is None:
            freed += int(value.const_value.nbytes) if value.const_value is not None else 0
        else:
            freed += accepted[producer][value.index() or 0].nbytes
    return size <= freed


def _replace(graph: ir.Graph, outputs: Iterable[ir.Value], arrays: Iterable[npt.NDArray[np.generic]]) -> None:
    """Put constants where the outputs of an operator are used; the operator itself is left without use."""
    for output, array in zip(outputs, arrays, strict=True):
        name = output.name or ""
        if output.uses():
            # The dead operator's output gives up its name, which the constant takes over.
            output.name = f"{name}__folded"
            output.replace_all_uses_with(add_initializer(graph, name, array))
