"""Operators that work value by value: activations, arithmetic, comparisons."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from amct_lite.learn.operators.call import Call, Operator

__all__ = ["OPERATORS"]


def _plainly(function: Callable[..., Any]) -> Operator:
    """The translation of an operator without attributes."""

    def translate(_call: Call, *inputs: Any) -> Any:
        return function(*inputs)

    return translate


def _clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    low = call.attribute("min") if low is None else low
    high = call.attribute("max") if high is None else high
    if low is not None:
        x = torch.maximum(x, torch.as_tensor(low, dtype=x.dtype, device=x.device))
    return x if high is None else torch.minimum(x, torch.as_tensor(high, dtype=x.dtype, device=x.device))


def _leaky_relu(call: Call, x: Any) -> Any:
    return F.leaky_relu(x, call.attribute("alpha", 0.01))


def _parametric_relu(_call: Call, x: Any, slope: Any) -> Any:
    return torch.where(x < 0, slope * x, x)


def _elu(call: Call, x: Any) -> Any:
    return F.elu(x, call.attribute("alpha", 1.0))


def _selu(call: Call, x: Any) -> Any:
    alpha, gamma = call.attribute("alpha", 1.6732631921768188), call.attribute("gamma", 1.0507010221481323)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x))


def _celu(call: Call, x: Any) -> Any:
    return F.celu(x, call.attribute("alpha", 1.0))


def _hard_sigmoid(call: Call, x: Any) -> Any:
    return (call.attribute("alpha", 0.2) * x + call.attribute("beta", 0.5)).clamp(0, 1)


def _gelu(call: Call, x: Any) -> Any:
    return F.gelu(x, approximate=call.attribute("approximate", "none"))


def _softmax(call: Call, x: Any) -> Any:
    return torch.softmax(x, call.attribute("axis", -1))


def _log_softmax(call: Call, x: Any) -> Any:
    return torch.log_softmax(x, call.attribute("axis", -1))


def _div(_call: Call, a: Any, b: Any) -> Any:
    if a.dtype.is_floating_point:
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _mod(call: Call, a: Any, b: Any) -> Any:
    return torch.fmod(a, b) if call.attribute("fmod", 0) else torch.remainder(a, b)


def _pow(_call: Call, base: Any, exponent: Any) -> Any:
    return torch.pow(base, exponent).to(base.dtype)


def _mean(_call: Call, *inputs: Any) -> Any:
    return reduce(torch.add, inputs) / len(inputs)


def _several(function: Callable[..., Any]) -> Operator:
    def translate(_call: Call, *inputs: Any) -> Any:
        return reduce(function, inputs)

    return translate


OPERATORS: dict[str, Operator] = {
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "PRelu": _parametric_relu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Mean": _mean,
    "Sum": _several(torch.add),
    "Max": _several(torch.maximum),
    "Min": _several(torch.minimum),
    **{
        name: _plainly(function)
        for name, function in {
            "Abs": torch.abs,
            "Add": torch.add,
            "And": torch.logical_and,
            "Ceil": torch.ceil,
            "Cos": torch.cos,
            "Equal": torch.eq,
            "Erf": torch.erf,
            "Exp": torch.exp,
            "Floor": torch.floor,
            "Greater": torch.gt,
            "GreaterOrEqual": torch.ge,
            "HardSwish": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
            "Less": torch.lt,
            "LessOrEqual": torch.le,
            "Log": torch.log,
            "Mish": F.mish,
            "Mul": torch.mul,
            "Neg": torch.neg,
            "Not": torch.logical_not,
            "Or": torch.logical_or,
            "Reciprocal": torch.reciprocal,
            "Relu": torch.relu,
            "Round": torch.round,
            "Sigmoid": torch.sigmoid,
            "Sign": torch.sign,
            "Sin": torch.sin,
            "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
            "Softsign": F.softsign,
            "Sqrt": torch.sqrt,
            "Sub": torch.sub,
            "Tanh": torch.tanh,
            "Where": torch.where,
        }.items()
    },
}
