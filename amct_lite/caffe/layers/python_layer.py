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

_MODULE = "amct_lite.caffe_layers"


def _python(translation: Translation, layer: CaffeLayer) -> None:
    """The layers of `amct_lite.caffe_layers`, spelled out as in the fake-quant form."""
    params = layer.params.python_param
    translator = _LAYERS.get(params.layer) if params.module == _MODULE else None
    if translator is None:
        raise unsupported(
            layer,
            f"{params.module}.{params.layer} is Python code that only Caffe can run.",
            "Replace it by Caffe's own layers, or cut the network in front of it.",
        )
    translator(translation, layer)


def _fake_quant(translation: Translation, layer: CaffeLayer) -> None:
    """A `FakeQuantLayer`: quantize, look up the kept level under NUQ, decode."""
    params = layer.params.python_param
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
        raise _not_ours(layer, text) from error


def _shift(translation: Translation, layer: CaffeLayer) -> None:
    """A `ShiftLayer`: to the accumulator's units, shift, cut to int16, and back."""
    text = layer.params.python_param.param_str
    (bottom,), (top,) = layer.bottoms, layer.tops
    rank = len(translation.shape(bottom))
    try:
        document = json.loads(text)
        scale, steps = (np.array(document[key], np.float32) for key in ("deq_scale", "steps"))
        axis = range(rank)[int(document["axis"])]
        if scale.ndim != 1 or scale.shape != steps.shape:
            raise ValueError("one step for each deq_scale")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _not_ours(layer, text) from error
    shape = [scale.size, *(1 for _ in range(rank - axis - 1))]
    unit = translation.constant(layer, "deq_scale", scale.reshape(shape))
    step = translation.constant(layer, "steps", steps.reshape(shape))
    value = translation.node("Round", [translation.node("Div", [translation.value(bottom), unit])])
    value = translation.node("Floor", [translation.node("Div", [value, step])])
    ends = [translation.constant(layer, role, np.float32(end)) for role, end in (("low", -32768), ("high", 32767))]
    factor = translation.constant(layer, "factor", (scale * steps).reshape(shape))
    value = translation.node("Mul", [translation.node("Clip", [value, *ends]), factor])
    translation.bind(top, value, translation.shape(bottom))


def _not_ours(layer: CaffeLayer, text: str) -> ModelError:
    return ModelError(
        f"Python: param_str is not a {layer.params.python_param.layer}'s: {text[:80]!r}.",
        layer=layer.name,
        remedy="Write the pair again with save_model.",
    )


_LAYERS: dict[str, Translator] = {"FakeQuantLayer": _fake_quant, "ShiftLayer": _shift}

TRANSLATORS: dict[str, Translator] = {"Python": _python}
