"""Whether a network is a float one: what was quantized before must not be quantized again."""

import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.graph.model import Model

__all__ = ["refuse_quantized"]

_QUANTIZED_OPERATORS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm"}
    | {"AscendQuant", "AscendDequant", "AscendAntiQuant", "Quant", "Dequant"}
)
_INTEGER_WEIGHTS = frozenset({ir.DataType.INT8, ir.DataType.INT4, ir.DataType.UINT4})


def refuse_quantized(model: Model) -> None:
    """Refuse an ONNX model in which something is quantized already.

    Raises:
        ModelError: It has such an operator, or weights in int8.
    """
    for node in model.ir.graph:
        if node.op_type in _QUANTIZED_OPERATORS or node.op_type.startswith("QLinear"):
            raise _quantized(model, f"the operator {node.name!r} of type {node.op_type}")
    for name, value in model.ir.graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype in _INTEGER_WEIGHTS:
            raise _quantized(model, f"{value.const_value.dtype.name} data in the initializer {name!r}")


def _quantized(model: Model, what: str) -> ModelError:
    return ModelError(
        f"The model {model.path} is quantized already: it has {what}.",
        remedy="Give the float model that the record was made for; a QDQ model goes to convert_qat_model.",
    )
