"""Old operator sets are raised to 13, so that the other rooms know one dialect."""

import onnx
import onnx.version_converter
import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.passes.naming import name_nodes
from amct_lite.graph.weightless import restore_weights, weightless_proto

__all__ = ["MINIMUM_OPSET", "raise_opset"]

# The first opset whose DequantizeLinear has an axis, that is, per-channel scales.
MINIMUM_OPSET = 13
# The first opset with a new version of the file format, and that version, newest first.
_IR_VERSIONS = ((21, 10), (19, 9), (15, 8), (0, 7))


def raise_opset(model: ir.Model, minimum: int = MINIMUM_OPSET) -> ir.Model:
    """Raise the ai.onnx operator set where it is lower than a minimum; operators of other domains stay as they are.

    Precondition: `drop_initializer_inputs`.
    Postcondition: the ai.onnx opset is the minimum or newer; weights are the same tensor objects; graph inputs,
    outputs, operators' names and functions are kept, new operators have names.

    Args:
        model: The model; it is not changed.
        minimum: The least opset that is wanted.

    Returns:
        The model itself where nothing is to do, else a new one.

    Raises:
        ModelError: The version converter of the onnx package cannot convert an operator.
    """
    version = model.opset_imports.get("")
    if version is None or version >= minimum:
        return model
    proto, weights = weightless_proto(model)
    try:
        # Some converters (Softmax, Upsample) read shapes and types.
        proto = onnx.shape_inference.infer_shapes(proto)
        converted_proto = onnx.version_converter.convert_version(proto, minimum)
        name_nodes(converted_proto.graph)
        converted = ir.from_proto(converted_proto)
    except Exception as error:  # the converter is C++ and raises what it likes
        raise ModelError(
            f"The model's operator set {version} cannot be raised to {minimum}: {error}.",
            remedy=f"Export the model with opset {minimum} or newer (torch.onnx.export(..., "
            f"opset_version={minimum})), or convert it with onnx.version_converter yourself; "
            "operators of custom domains are kept, but the converter must know every ai.onnx operator.",
        ) from error
    restore_weights(converted, weights, {value.name or "" for value in model.graph.inputs})
    _keep_what_the_converter_drops(model, converted, minimum)
    return converted


def _keep_what_the_converter_drops(model: ir.Model, converted: ir.Model, opset: int) -> None:
    needed = next(version for first, version in _IR_VERSIONS if opset >= first)
    converted.ir_version = max(model.ir_version, needed)
    converted.producer_name = model.producer_name
    converted.producer_version = model.producer_version
    converted.domain = model.domain
    converted.model_version = model.model_version
    converted.doc_string = model.doc_string
    converted.metadata_props.clear()
    converted.metadata_props.update(model.metadata_props)
    converted.graph.name = model.graph.name
    for domain, version in model.opset_imports.items():
        converted.opset_imports.setdefault(domain, version)
    for identifier, function in model.functions.items():
        if identifier not in converted.functions:
            converted.functions[identifier] = function.clone()
