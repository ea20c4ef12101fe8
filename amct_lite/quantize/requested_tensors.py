"""The inputs of operators without weights that a config's `tensor_quantize` names, each as a plan."""

from collections.abc import Sequence

import onnx_ir as ir

from amct_lite.errors import ConfigError
from amct_lite.files.config import FloatActivationParams, LayerConfig, QuantConfig, TensorQuantize
from amct_lite.files.target import Target
from amct_lite.graph.constants import constant_tensor
from amct_lite.graph.model import Model
from amct_lite.graph.operator_inputs import operator_input
from amct_lite.quantize.layer_names import no_such_layer
from amct_lite.quantize.layer_plan import LayerPlan

__all__ = ["merge_tensor_plans", "requested_tensors"]

# AMCT's table: MaxPool and Add of ONNX, Pooling with MAX and Eltwise with SUM of Caffe, which become these operators.
_OPERATORS = {"MaxPool": "MaxPool", "Add": "Add"}
_CAFFE_OPERATORS = {"MaxPool": "Pooling", "GlobalMaxPool": "Pooling", "Add": "Eltwise", "Sum": "Eltwise"}
_REMEDY = "Correct tensor_quantize in the config."


def requested_tensors(model: Model, config: QuantConfig, target: Target) -> tuple[LayerPlan, ...]:
    """Plan the entries of `tensor_quantize`.

    Args:
        model: The float model.
        config: A valid config.
        target: The target that it names.

    Returns:
        A plan for each entry, in graph order, of a layer without weights whose name is "{operator}:{index}".

    Raises:
        ConfigError: An entry names what is not there or cannot be quantized.
    """
    if not config.tensor_quantize:
        return ()
    nodes = {str(node.name): node for node in model.ir.graph}
    for entry in config.tensor_quantize:
        if entry.layer_name not in nodes:
            raise ConfigError(no_such_layer(entry.layer_name, nodes), remedy=_REMEDY)
        refusal = _refusal(model, nodes[entry.layer_name], entry, target)
        if refusal is not None:
            raise ConfigError(f"layer {entry.layer_name} does not support quant. {refusal}", remedy=_REMEDY)
    _refuse_both_operands(config.tensor_quantize, nodes, is_caffe=model.weights_path is not None)
    places = {name: place for place, name in enumerate(nodes)}
    entries = sorted(config.tensor_quantize, key=lambda entry: (places[entry.layer_name], entry.input_index))
    return tuple(_plan(nodes[entry.layer_name], entry, config, target) for entry in entries)


def merge_tensor_plans(
    model: Model, requested: Sequence[LayerPlan], chosen: Sequence[LayerPlan]
) -> tuple[LayerPlan, ...]:
    """Both kinds of tensor plans in graph order; where both have an input, the one that was asked for counts."""
    if not requested:
        return tuple(chosen)
    plans = {plan.layer.name: plan for plan in (*chosen, *requested)}
    places = {node.name: place for place, node in enumerate(model.ir.graph)}
    order = sorted(plans.values(), key=lambda plan: (places[plan.layer.node_name], plan.layer.activation_index))
    return tuple(order)


def _plan(node: ir.Node, entry: TensorQuantize, config: QuantConfig, target: Target) -> LayerPlan:
    params = entry.activation_quant_params
    assert not isinstance(params, FloatActivationParams)
    asymmetric = config.activation_offset if params.asymmetric is None else params.asymmetric
    return LayerPlan(
        operator_input(node, entry.input_index),
        LayerConfig(activation_quant_params=params),
        # What makes floats of an integer tensor without a layer's bias, AscendAntiQuant, only multiplies.
        with_offset=asymmetric and target.deploy_form != "ascend",
    )


def _refusal(model: Model, node: ir.Node, entry: TensorQuantize, target: Target) -> str | None:
    caffe = model.weights_path is not None
    known = _CAFFE_OPERATORS if caffe else _OPERATORS
    found = node.metadata_props.get("caffe_type", node.op_type) if caffe else node.op_type
    if node.domain != "" or known.get(node.op_type) != found:
        what = "Caffe's Pooling with MAX and Eltwise with SUM" if caffe else "MaxPool and Add"
        return f"Inputs without weights are quantized of {what}; this is {found}."
    data = node.inputs[: 1 if known[node.op_type] in ("MaxPool", "Pooling") else None]
    if entry.input_index >= len(data):
        return f"input_index must be below {len(data)}, but is {entry.input_index}."
    value = data[entry.input_index]
    if value is None or constant_tensor(value) is not None:
        return f"Its input {entry.input_index} is a constant."
    if value.dtype not in (None, ir.DataType.FLOAT):
        return f"Its input {entry.input_index} is of type {value.dtype}, not FLOAT."
    if caffe and value.producer() is not None and _is_scaled_operand(node, value):
        return "Its coefficients (coeff) must be 1."
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "Its second output, the indices, is used."
    if any(layer.name == entry.key for layer in model.layers):
        return f"There is a layer {entry.key!r}, whose key in the record its input would have."
    params = entry.activation_quant_params
    if target.deploy_form == "ascend" and getattr(params, "num_bits", 8) != 8:
        return f"num_bits must be 8 under the target {target.name!r}, whose deploy form holds int8."
    return None


def _is_scaled_operand(node: ir.Node, value: ir.Value) -> bool:
    """Whether what a Caffe Eltwise adds is its bottom times a coefficient: a node of the layer's own."""
    producer = value.producer()
    return producer is not None and producer.op_type == "Mul" and str(producer.name).startswith(f"{node.name}/")


def _refuse_both_operands(entries: Sequence[TensorQuantize], nodes: dict[str, ir.Node], *, is_caffe: bool) -> None:
    """Of an ONNX Add, AMCT quantizes a single input."""
    seen: set[str] = set()
    for entry in entries:
        if is_caffe or nodes[entry.layer_name].op_type != "Add":
            continue
        if entry.layer_name in seen:
            raise ConfigError(
                f"layer {entry.layer_name} does not support quant. Of an Add a single input can be quantized.",
                remedy=_REMEDY,
            )
        seen.add(entry.layer_name)
