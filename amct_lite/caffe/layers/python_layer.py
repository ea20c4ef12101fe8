"""Translators: the Python layers that amct_lite itself writes into fake-quant pairs; others cannot be known."""

import json

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator, unsupported
from amct_lite.codebook.lookup import level_table
from amct_lite.errors import ModelError, ParameterError

__all__ = ["TRANSLATORS"]

FAKE_QUANT = ("amct_lite.caffe_layers", "FakeQuantLayer")


def _python(translation: Translation, layer: CaffeLayer) -> None:
    """A `FakeQuantLayer`: quantize, look up the kept level under NUQ, decode; spelled out as in the fake-quant form."""
    params = layer.params.python_param
    if (params.module, params.layer) != FAKE_QUANT:
        raise unsupported(
            layer,
            f"{params.module}.{params.layer} is Python code that only Caffe can run.",
            "Replace it by Caffe's own layers, or cut the network in front of it.",
        )
    scale, offset, table = _quantizer(layer, params.param_str)
    (bottom,), (top,) = layer.bottoms, layer.tops
    step = translation.constant(layer, "scale", np.float32(scale))
    zero = translation.constant(layer, "zero_point", np.uint8(offset + 128))
    quantized = translation.node("QuantizeLinear", [translation.value(bottom), step, zero])
    if table is None:
        value = translation.node("Cast", [quantized], {"to": int(ir.DataType.FLOAT)})
        centre = translation.constant(layer, "zero_point.float", np.float32(offset + 128))
        value = translation.node("Mul", [translation.node("Sub", [value, centre]), step])
    else:
        values = translation.constant(layer, "table", (table - np.float32(offset)) * np.float32(scale))
        flat = translation.node("Reshape", [quantized, translation.constant(layer, "flat", np.array([-1], np.int64))])
        index = translation.node("Cast", [flat], {"to": int(ir.DataType.INT64)})
        decoded = translation.node("GatherElements", [values, index], {"axis": 0})
        value = translation.node("Reshape", [decoded, translation.node("Shape", [quantized])])
    translation.bind(top, value, translation.shape(bottom))


def _quantizer(layer: CaffeLayer, text: str) -> tuple[float, int, npt.NDArray[np.float32] | None]:
    """(scale, offset, the level that each level goes to, None where all are kept)."""
    try:
        document = json.loads(text)
        if document.get("num_bits", 8) != 8:
            raise ValueError("only 8 bits are known")
        scale, offset, levels = float(document["scale"]), int(document["offset"]), document.get("levels")
        if levels is None:
            return scale, offset, None
        table = level_table(np.array([int(level) for level in levels]), document.get("costs") or ())
        return scale, offset, table.astype(np.float32)
    except (ValueError, KeyError, TypeError, AttributeError, ParameterError) as error:
        raise ModelError(
            f"Python: param_str is not a FakeQuantLayer's: {text[:80]!r}.",
            layer=layer.name,
            remedy="Write the pair again with save_model.",
        ) from error


TRANSLATORS: dict[str, Translator] = {"Python": _python}
