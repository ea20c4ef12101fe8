"""Pooling."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from amct_lite.learn.operators.call import Call, Operator
from amct_lite.learn.operators.padding import torch_pads, window_pads

__all__ = ["OPERATORS"]

_MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _max_pool(call: Call, x: Any) -> Any:
    if call.num_outputs > 1:
        raise call.refuse("indices as an output")
    kernel, strides, dilations = _window(call)
    pads, more = _pads(call, x.shape[2:], kernel, strides, dilations)
    lowest = -math.inf if x.dtype.is_floating_point else torch.iinfo(x.dtype).min
    padded = F.pad(x, torch_pads(_with_more(pads, more)), value=lowest)
    return _MAXIMA[len(kernel)](padded, kernel, strides, 0, dilations)


def _average_pool(call: Call, x: Any) -> Any:
    kernel, strides, dilations = _window(call)
    pads, more = _pads(call, x.shape[2:], kernel, strides, dilations)
    mean = _MEANS[len(kernel)]

    def pool(values: Any) -> Any:
        if set(dilations) == {1}:
            return mean(values, kernel, strides)
        windows = values
        for axis, (width, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), 2):
            windows = windows.unfold(axis, (width - 1) * dilation + 1, stride)[..., ::dilation]
        return windows.mean(tuple(range(x.dim(), windows.dim())))

    total = pool(F.pad(x, torch_pads(_with_more(pads, more))))
    # What counts: the values, with count_include_pad the pads, never what the last window lacks.
    counted = torch.ones_like(x[:1, :1])
    counted = F.pad(counted, torch_pads(pads), value=float(call.attribute("count_include_pad", 0)))
    counted = F.pad(counted, torch_pads([(0, extra) for extra in more]))
    return total / pool(counted)


def _window(call: Call) -> tuple[list[int], list[int], list[int]]:
    kernel = call.attribute("kernel_shape")
    if len(kernel) not in _MAXIMA:
        raise call.refuse(f"{len(kernel)} spatial axes")
    ones = [1] * len(kernel)
    return kernel, call.attribute("strides", ones), call.attribute("dilations", ones)


def _pads(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """The pads, and how many values the last window lacks behind them in ceil mode."""
    pads = window_pads(call, sizes, kernel, strides, dilations)
    more = []
    for size, (before, behind), width, stride, dilation in zip(sizes, pads, kernel, strides, dilations, strict=True):
        span = size + before + behind - ((width - 1) * dilation + 1)
        windows = span // stride + 1
        if call.attribute("ceil_mode", 0):
            windows = -(-span // stride) + 1
            # A window that would begin behind the values is none.
            windows -= (windows - 1) * stride >= size + before
        more.append(max(0, (windows - 1) * stride - span))
    return pads, more


def _with_more(pads: Sequence[tuple[int, int]], more: Sequence[int]) -> list[tuple[int, int]]:
    return [(before, behind + extra) for (before, behind), extra in zip(pads, more, strict=True)]


def _global_average(_call: Call, x: Any) -> Any:
    return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


def _global_max(_call: Call, x: Any) -> Any:
    return x.amax(dim=tuple(range(2, x.dim())), keepdim=True)


OPERATORS: dict[str, Operator] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
}
