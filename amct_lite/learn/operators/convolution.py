"""Convolutions and products with weights."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from amct_lite.learn.operators.call import Call, Operator
from amct_lite.learn.operators.padding import torch_pads, window_pads

__all__ = ["OPERATORS"]

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _conv(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    rank = weight.dim() - 2
    if rank not in _CONVOLUTIONS:
        raise call.refuse(f"{rank} spatial axes")
    strides, dilations = (call.attribute(name, [1] * rank) for name in ("strides", "dilations"))
    pads = window_pads(call, x.shape[2:], weight.shape[2:], strides, dilations)
    even = all(before == behind for before, behind in pads)
    if not even:
        x = F.pad(x, torch_pads(pads))
    padding = [before for before, _ in pads] if even else 0
    return _CONVOLUTIONS[rank](x, weight, bias, strides, padding, dilations, call.attribute("group", 1))


def _conv_transpose(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    rank = weight.dim() - 2
    if rank not in _TRANSPOSED:
        raise call.refuse(f"{rank} spatial axes")
    strides, dilations = (call.attribute(name, [1] * rank) for name in ("strides", "dilations"))
    more = call.attribute("output_padding", [0] * rank)
    whole = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, call.attribute("group", 1), dilations)
    sizes = [size + extra for size, extra in zip(whole.shape[2:], more, strict=True)]
    pads = _cropped(call, x.shape[2:], sizes, strides)
    margins = [(-before, extra - behind) for (before, behind), extra in zip(pads, more, strict=True)]
    y = F.pad(whole, torch_pads(margins))
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _cropped(call: Call, inputs: Any, sizes: list[int], strides: list[int]) -> list[tuple[int, int]]:
    """What is cut off a transposed convolution's full output (ONNX operators, "ConvTranspose")."""
    mode, wanted = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        pads = call.attribute("pads", [0] * 2 * len(sizes)) if mode == "NOTSET" else [0] * 2 * len(sizes)
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    if wanted is None:
        wanted = [size * stride for size, stride in zip(inputs, strides, strict=True)]
    found = []
    for size, target in zip(sizes, wanted[-len(sizes) :], strict=True):
        total = size - target
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return found


def _gemm(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    a = a.t() if call.attribute("transA", 0) else a
    b = b.t() if call.attribute("transB", 0) else b
    y = call.attribute("alpha", 1.0) * (a @ b)
    return y if c is None else y + call.attribute("beta", 1.0) * c


def _matmul(_call: Call, a: Any, b: Any) -> Any:
    return a @ b


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
