"""Types and shapes of all tensors, as far as they can be known without running."""

import logging

import onnx
import onnx_ir as ir

from amct_lite.graph.weightless import weightless_proto

__all__ = ["infer_shapes"]

_logger = logging.getLogger(__name__)


def infer_shapes(model: ir.Model) -> bool:
    """Fill in types and shapes of the tensors of the main graph; a failure is logged, nothing more.

    What the file says about the outputs of ai.onnx operators is not believed: tools that make a batch size
    dynamic often leave the old shapes there. Where inference knows nothing, the rank alone is kept.

    Precondition: none.
    Postcondition: a static shape in the main graph follows from the graph's inputs, constants and the
    declarations of custom operators. Graph inputs are untouched; graph outputs keep what they declare.

    Args:
        model: The model, changed in place.

    Returns:
        Whether inference succeeded.
    """
    doubtful = [value for node in model.graph if node.domain == "" for value in node.outputs]
    doubtful_names = {value.name for value in doubtful}
    try:
        proto, _ = weightless_proto(model)
        kept = [info for info in proto.graph.value_info if info.name not in doubtful_names]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(kept)
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        known = {info.name: ir.from_proto(info) for info in (*inferred.graph.value_info, *inferred.graph.output)}
    except Exception as error:  # C++ code that raises what it likes; shapes are a help, not a must
        _logger.warning("Shapes cannot be inferred, the model is used without them: %s", error)
        return False
    for value in doubtful:
        _merge(value, known.get(value.name or ""))
    return True


def _merge(value: ir.Value, inferred: ir.Value | None) -> None:
    if inferred is not None and inferred.type is not None and value.type is None:
        value.type = inferred.type
    if value.is_graph_output():
        if value.shape is None and inferred is not None:
            value.shape = inferred.shape
        return
    if inferred is not None and inferred.shape is not None:
        value.shape = inferred.shape
    elif value.shape is not None:
        value.shape = ir.Shape([None] * value.shape.rank())
