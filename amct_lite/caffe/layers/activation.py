"""Translators: element by element: ReLU to Threshold, Power, Exp, Log."""

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]

_NATURAL_BASE = -1.0  # Caffe's way to say e

_Formula = Callable[[Translation, CaffeLayer, ir.Value], ir.Value]


def _elementwise(formula: _Formula) -> Translator:
    """A translator for a layer whose one top has the shape of its one bottom."""

    def translate(translation: Translation, layer: CaffeLayer) -> None:
        value = formula(translation, layer, translation.value(layer.bottoms[0]))
        translation.bind(layer.tops[0], value, translation.shape(layer.bottoms[0]))

    translate.__doc__ = formula.__doc__
    return translate


def _operator(op_type: str, formula: str) -> Translator:
    """A translator for a layer without parameters that is one ONNX operator."""

    def apply(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
        return translation.node(op_type, [data], name=layer.name)

    apply.__doc__ = f"{op_type}: {formula}."
    return _elementwise(apply)


def _relu(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """ReLU: `max(x, 0) + negative_slope min(x, 0)`."""
    slope = layer.params.relu_param.negative_slope
    if slope == 0:
        return translation.node("Relu", [data], name=layer.name)
    return translation.node("LeakyRelu", [data], {"alpha": float(slope)}, name=layer.name)


def _prelu(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """PReLU: `max(x, 0) + slope min(x, 0)`, a slope for each channel (axis 1) or one for all."""
    shape = translation.shape(layer.bottoms[0])
    if len(shape) < 2 or shape[1] is None:
        raise unsupported(layer, f"Its input has {len(shape)} axes; channels are axis 1.", "Give it two axes or more.")
    channels = 1 if layer.params.prelu_param.channel_shared else shape[1]
    slope = translation.blob(layer, 0, (channels,)).reshape(channels, *(1,) * (len(shape) - 2))
    return translation.node("PRelu", [data, translation.constant(layer, "slope", slope)], name=layer.name)


def _elu(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """ELU: `x > 0 ? x : alpha (exp(x) - 1)`."""
    return translation.node("Elu", [data], {"alpha": float(layer.params.elu_param.alpha)}, name=layer.name)


def _swish(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """Swish: `x sigmoid(beta x)`."""
    gate = translation.node("Sigmoid", [_scaled(translation, layer, data, layer.params.swish_param.beta)])
    return translation.node("Mul", [data, gate], name=layer.name)


def _clip(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """Clip: `max(min(x, max), min)`."""
    param = layer.params.clip_param
    if not (param.HasField("min") and param.HasField("max")):
        raise unsupported(layer, "It lacks min or max.", "Give both in clip_param.")
    return _clipped(translation, layer, data, param.min, param.max)


def _relu6(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """ReLU6 of the forks: `min(max(x, 0), 6) + negative_slope min(x, 0)`."""
    slope = layer.params.relu6_param.negative_slope
    if slope == 0:
        return _clipped(translation, layer, data, 0.0, 6.0)
    leaky = translation.node("LeakyRelu", [data], {"alpha": float(slope)})
    return translation.node("Min", [leaky, translation.constant(layer, "max", np.float32(6))], name=layer.name)


def _mish(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """Mish of the forks: `x tanh(log(1 + exp(x)))`."""
    gate = translation.node("Tanh", [translation.node("Softplus", [data])])
    return translation.node("Mul", [data, gate], name=layer.name)


def _clipped(translation: Translation, layer: CaffeLayer, data: ir.Value, low: float, high: float) -> ir.Value:
    limits = [translation.constant(layer, "min", np.float32(low)), translation.constant(layer, "max", np.float32(high))]
    return translation.node("Clip", [data, *limits], name=layer.name)


def _threshold(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """Threshold: `x > threshold ? 1 : 0`."""
    threshold = translation.constant(layer, "threshold", np.float32(layer.params.threshold_param.threshold))
    above = translation.node("Greater", [data, threshold])
    return translation.node("Cast", [above], {"to": ir.DataType.FLOAT.value}, name=layer.name)


def _power(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """Power: `(shift + scale x) ** power`; where scale or power is 0, the constant that this is."""
    param = layer.params.power_param
    if param.power * param.scale == 0:
        with np.errstate(all="ignore"):  # infinite or no number where it is so in Caffe
            number = 1.0 if param.power == 0 else np.float32(param.shift) ** np.float32(param.power)
        sizes = translation.node("Shape", [data])
        constant = ir.tensor(np.array([number], np.float32))
        return translation.node("ConstantOfShape", [sizes], {"value": constant}, name=layer.name)
    value = _shifted(translation, layer, _scaled(translation, layer, data, param.scale), param.shift)
    if param.power != 1:
        value = translation.node("Pow", [value, translation.constant(layer, "power", np.float32(param.power))])
    return value


def _exp(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """Exp: `base ** (shift + scale x)`, as Caffe computes it: `base ** shift * exp(log(base) scale x)`."""
    param = layer.params.exp_param
    log_base = _log_of_base(layer, param.base)
    value = translation.node("Exp", [_scaled(translation, layer, data, log_base * param.scale)], name=layer.name)
    return _scaled(translation, layer, value, math.exp(log_base * param.shift), role="factor")


def _log(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    """Log: `log(shift + scale x) / log(base)`."""
    param = layer.params.log_param
    log_base = _log_of_base(layer, param.base)
    if log_base == 0:
        raise unsupported(layer, "Its base is 1, to which there is no logarithm.", "Correct base.")
    value = _shifted(translation, layer, _scaled(translation, layer, data, param.scale), param.shift)
    value = translation.node("Log", [value], name=layer.name)
    return _scaled(translation, layer, value, 1 / log_base, role="factor")


def _log_of_base(layer: CaffeLayer, base: float) -> float:
    if base == _NATURAL_BASE:
        return 1.0
    if base <= 0:
        raise unsupported(layer, f"Its base is {base}.", "Make it positive, or leave it out for e.")
    return math.log(base)


def _scaled(
    translation: Translation, layer: CaffeLayer, data: ir.Value, scale: float, *, role: str = "scale"
) -> ir.Value:
    if scale == 1:
        return data
    return translation.node("Mul", [data, translation.constant(layer, role, np.float32(scale))])


def _shifted(translation: Translation, layer: CaffeLayer, data: ir.Value, shift: float) -> ir.Value:
    if shift == 0:
        return data
    return translation.node("Add", [data, translation.constant(layer, "shift", np.float32(shift))])


TRANSLATORS: dict[str, Translator] = {
    "AbsVal": _operator("Abs", "`|x|`"),
    # log(1 + exp(x)) without overflow: onnxruntime's Softplus branches at 0 exactly as Caffe's BNLL does.
    "BNLL": _operator("Softplus", "`x > 0 ? x + log(1 + exp(-x)) : log(1 + exp(x))`"),
    "Clip": _elementwise(_clip),
    "ELU": _elementwise(_elu),
    "Exp": _elementwise(_exp),
    "Log": _elementwise(_log),
    "Mish": _elementwise(_mish),
    "PReLU": _elementwise(_prelu),
    "Power": _elementwise(_power),
    "ReLU": _elementwise(_relu),
    "ReLU6": _elementwise(_relu6),
    "Sigmoid": _operator("Sigmoid", "`1 / (1 + exp(-x))`"),
    "Swish": _elementwise(_swish),
    "TanH": _operator("Tanh", "`tanh(x)`"),
    "Threshold": _elementwise(_threshold),
}
