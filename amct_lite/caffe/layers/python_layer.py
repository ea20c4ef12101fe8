"""Translators: the Python layers that amct_lite itself writes into fake-quant pairs; others cannot be known."""

import json
from dataclasses import dataclass

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
    quantizer = _quantizer(layer, layer.params.python_param.param_str)
    offset, table = quantizer.offset, quantizer.table
    (bottom,), (top,) = layer.bottoms, layer.tops
    data, step = translation.value(bottom), translation.constant(layer, "scale", np.float32(quantizer.scale))
    decode = step
    if quantizer.decode_scale != quantizer.scale:
        decode = translation.constant(layer, "decode_scale", np.float32(quantizer.decode_scale))
    if quantizer.float16:
        # The product of two float16 numbers is exact in float32, so casting it rounds as a multiplication in float16.
        factor = np.float32(np.float16(np.float32(1) / np.float32(quantizer.scale)))
        steps = [_through_float16(translation, data), translation.constant(layer, "factor", factor)]
        data = _through_float16(translation, translation.node("Mul", steps))
        step = translation.constant(layer, "step", np.float32(1))
    zero = translation.constant(layer, "zero_point", np.uint8(offset + 128))
    quantized = translation.node("QuantizeLinear", [data, step, zero])
    if table is None:
        value = translation.node("Cast", [quantized], {"to": int(ir.DataType.FLOAT)})
        centre = translation.constant(layer, "zero_point.float", np.float32(offset + 128))
        value = translation.node("Mul", [translation.node("Sub", [value, centre]), decode])
    else:
        decoded_levels = (table - np.float32(offset)) * np.float32(quantizer.decode_scale)
        values = translation.constant(layer, "table", decoded_levels)
        flat = translation.node("Reshape", [quantized, translation.constant(layer, "flat", np.array([-1], np.int64))])
        index = translation.node("Cast", [flat], {"to": int(ir.DataType.INT64)})
        decoded = translation.node("GatherElements", [values, index], {"axis": 0})
        value = translation.node("Reshape", [decoded, translation.node("Shape", [quantized])])
    translation.bind(top, value, translation.shape(bottom))


@dataclass(frozen=True)
class _Quantizer:
    """The parameters of a `FakeQuantLayer`.

    Attributes:
        scale: Step between levels.
        offset: The level of 0.
        decode_scale: What a step decodes to.
        float16: Whether it rounds as a device that quantizes in float16.
        table: float32 array of shape (256,), the level that each level goes to; None where all are kept.
    """

    scale: float
    offset: int
    decode_scale: float
    float16: bool
    table: npt.NDArray[np.float32] | None


def _through_float16(translation: Translation, value: ir.Value) -> ir.Value:
    half = translation.node("Cast", [value], {"to": int(ir.DataType.FLOAT16)})
    return translation.node("Cast", [half], {"to": int(ir.DataType.FLOAT)})


def _quantizer(layer: CaffeLayer, text: str) -> _Quantizer:
    try:
        document = json.loads(text)
        if document.get("num_bits", 8) != 8:
            raise ValueError("only 8 bits are known")
        scale, offset, levels = float(document["scale"]), int(document["offset"]), document.get("levels")
        table = None
        if levels is not None:
            kept = level_table(np.array([int(level) for level in levels]), document.get("costs") or ())
            table = kept.astype(np.float32)
        decoded = document.get("decode_scale")
        decode_scale = scale if decoded is None else float(decoded)
        return _Quantizer(scale, offset, decode_scale, bool(document.get("float16")), table)
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
