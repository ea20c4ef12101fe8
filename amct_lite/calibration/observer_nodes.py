"""Nodes of a calibration model that hand tensors to operators in Python, where the session has such operators.

Each node calls an operator of AMCT's domain, which the model itself defines as a function that only counts elements: a
session without the operators runs the model as it is, one with them (`amct_lite.AMCT_SO`) calls ours in its place.
"""

from collections.abc import Iterable, Mapping

import onnx_ir as ir

__all__ = [
    "DOMAIN",
    "OBSERVED_TYPES",
    "add_observer_nodes",
    "observable_inputs",
    "operator_name",
    "remove_observer_nodes",
]

DOMAIN = "amct.customop"

OBSERVED_TYPES = {
    ir.DataType.FLOAT: "float",
    ir.DataType.DOUBLE: "double",
    ir.DataType.BOOL: "bool",
    ir.DataType.INT8: "int8",
    ir.DataType.UINT8: "uint8",
    ir.DataType.INT16: "int16",
    ir.DataType.UINT16: "uint16",
    ir.DataType.INT32: "int32",
    ir.DataType.UINT32: "uint32",
    ir.DataType.INT64: "int64",
    ir.DataType.UINT64: "uint64",
}
"""What Python operators can take, with onnxruntime-extensions' names."""


def operator_name(element_type: str) -> str:
    """The operator for tensors of a type, "ObserveFloat" for "float"."""
    return f"Observe{element_type.capitalize()}"


def observable_inputs(model: ir.Model) -> list[str]:
    """The network's inputs that an operator in Python can take as they are."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    return [value.name or "" for value in inputs if value.dtype in OBSERVED_TYPES]


def add_observer_nodes(model: ir.Model, tensors: Iterable[str], inputs: Iterable[str], calibration_model: str) -> None:
    """Have tensors and inputs observed.

    Args:
        model: The network; it is changed.
        tensors: Tensors of the main graph.
        inputs: Some of `observable_inputs`.
        calibration_model: The absolute path that the model will have, for the operators to find their task.
    """
    values = {value.name: value for node in model.graph for value in node.outputs}
    values |= {value.name: value for value in model.graph.inputs}
    used = set()
    for name in dict.fromkeys((*tensors, *inputs)):
        value = values[name]
        element_type = OBSERVED_TYPES.get(value.dtype or ir.DataType.FLOAT)
        if element_type is None:  # of 16 bits; histograms are of float32 anyway
            value, element_type = _append(model, "Cast", value, f"{name}.cast", {"to": int(ir.DataType.FLOAT)}), "float"
        operator = operator_name(element_type)
        attributes = {"tensor": name, "calibration_model": calibration_model}
        _append(model, operator, value, f"{name}.observer", attributes, DOMAIN)
        used.add(operator)
    model.opset_imports[DOMAIN] = 1
    for operator in sorted(used):
        function = _counting_function(operator, model.opset_imports[""])
        model.functions[function.identifier()] = function


def _append(
    model: ir.Model, operator: str, value: ir.Value, name: str, attributes: Mapping[str, int | str], domain: str = ""
) -> ir.Value:
    node = ir.node(operator, [value], attributes, domain=domain, name=name)
    node.outputs[0].name = name
    model.graph.append(node)
    return node.outputs[0]


def remove_observer_nodes(model: ir.Model) -> None:
    """Undo `add_observer_nodes` on a model that was read from a file."""
    observers = [node for node in model.graph if node.domain == DOMAIN]
    model.graph.remove(observers, safe=True)
    for identifier in [identifier for identifier in model.functions if identifier[0] == DOMAIN]:
        del model.functions[identifier]
    model.opset_imports.pop(DOMAIN, None)


def _counting_function(operator: str, opset: int) -> ir.Function:
    tensor = ir.Value(name="tensor")
    count = ir.node("Size", [tensor], name="count")
    count.outputs[0].name = "count"
    graph = ir.Graph([tensor], count.outputs, nodes=[count], opset_imports={"": opset})
    attributes = [ir.Attr(name, ir.AttributeType.STRING, "") for name in ("tensor", "calibration_model")]
    return ir.Function(DOMAIN, operator, "", graph=graph, attributes=attributes)
