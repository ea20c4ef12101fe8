"""Reductions."""

from collections.abc import Callable
from typing import Any

import torch

from amct_lite.learn.operators.call import Call, Operator, integers

__all__ = ["OPERATORS"]


def _reduction(reduce: Callable[..., Any]) -> Operator:
    """An operator with axes as an attribute (older opsets) or an input."""

    def translate(call: Call, x: Any, axes: Any = None) -> Any:
        wanted = integers(axes, call, call.attribute("axes"))
        if not wanted:
            if call.attribute("noop_with_empty_axes", 0):
                return x
            wanted = list(range(x.dim()))
        return reduce(x, tuple(wanted), bool(call.attribute("keepdims", 1)))

    return translate


def _prod(x: Any, axes: tuple[int, ...], keepdim: bool) -> Any:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _arg_max(call: Call, x: Any) -> Any:
    axis, keep = call.attribute("axis", 0), bool(call.attribute("keepdims", 1))
    if not call.attribute("select_last_index", 0):
        return x.argmax(axis, keepdim=keep)
    return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=keep)


OPERATORS: dict[str, Operator] = {
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduction(_prod),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ArgMax": _arg_max,
}
