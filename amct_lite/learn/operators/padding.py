"""Pads of windows that slide, as ONNX states them: by numbers, or by what shall come out."""

from collections.abc import Sequence

from amct_lite.learn.operators.call import Call

__all__ = ["torch_pads", "window_pads"]

Pads = list[tuple[int, int]]
"""For each spatial axis, before and behind."""


def window_pads(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pads:
    """The pads of a convolution or a pooling (ONNX operators, "Conv", attribute auto_pad)."""
    mode = call.attribute("auto_pad", "NOTSET")
    if mode == "VALID":
        return [(0, 0)] * len(sizes)
    if mode == "NOTSET":
        pads = call.attribute("pads", [0] * 2 * len(sizes))
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    found = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return found


def torch_pads(pads: Pads) -> list[int]:
    """The same for torch.nn.functional.pad, which counts axes from the last."""
    return [number for pair in reversed(pads) for number in pair]
