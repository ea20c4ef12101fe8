"""Normalization."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from amct_lite.learn.operators.call import Call, Operator

__all__ = ["OPERATORS"]


def _batch_normalization(call: Call, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    if call.attribute("training_mode", 0):
        raise call.refuse("training_mode 1")
    momentum = call.batch_norm_momentum
    return F.batch_norm(
        x,
        mean,
        variance,
        scale,
        bias,
        training=momentum is not None,
        momentum=momentum or 0.0,
        eps=call.attribute("epsilon", 1e-5),
    )


def _instance_normalization(call: Call, x: Any, scale: Any, bias: Any) -> Any:
    return F.instance_norm(x, weight=scale, bias=bias, eps=call.attribute("epsilon", 1e-5))


def _layer_normalization(call: Call, x: Any, scale: Any, bias: Any = None) -> Any:
    axes = tuple(range(call.attribute("axis", -1) % x.dim(), x.dim()))
    mean = x.mean(axes, keepdim=True)
    inverse = (x - mean).square().mean(axes, keepdim=True).add(call.attribute("epsilon", 1e-5)).rsqrt()
    y = (x - mean) * inverse * scale
    return (y if bias is None else y + bias), mean, inverse


def _local_response_normalization(call: Call, x: Any) -> Any:
    size = call.attribute("size")
    before, behind = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = F.pad(x.square().transpose(1, -1), (before, behind)).unfold(-1, size, 1).sum(-1).transpose(1, -1)
    scale = call.attribute("bias", 1.0) + call.attribute("alpha", 1e-4) / size * squares
    return x / scale ** call.attribute("beta", 0.75)


def _lp_normalization(call: Call, x: Any) -> Any:
    axis, order = call.attribute("axis", -1), call.attribute("p", 2)
    norm = torch.linalg.vector_norm(x, ord=order, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LRN": _local_response_normalization,
    "LpNormalization": _lp_normalization,
}
