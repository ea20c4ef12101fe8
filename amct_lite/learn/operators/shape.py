"""Operators that move values, and those that compute shapes."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from amct_lite.learn.operators.call import Call, Operator, integers
from amct_lite.learn.operators.padding import torch_pads

__all__ = ["OPERATORS"]


def _reshape(call: Call, x: Any, shape: Any) -> Any:
    sizes = integers(shape, call) or []
    if not call.attribute("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(call: Call, x: Any) -> Any:
    axis = call.attribute("axis", 1)
    leading = int(np.prod(x.shape[: axis if axis >= 0 else axis + x.dim()]))
    return x.reshape(leading, -1) if x.numel() else x.reshape(leading, 0)


def _transpose(call: Call, x: Any) -> Any:
    return x.permute(call.attribute("perm", list(range(x.dim()))[::-1]))


def _squeeze(call: Call, x: Any, axes: Any = None) -> Any:
    wanted = integers(axes, call, call.attribute("axes"))
    return x.squeeze() if wanted is None else x.squeeze(tuple(wanted))


def _unsqueeze(call: Call, x: Any, axes: Any = None) -> Any:
    wanted = integers(axes, call, call.attribute("axes")) or []
    rank = x.dim() + len(wanted)
    for axis in sorted(axis % rank for axis in wanted):
        x = x.unsqueeze(axis)
    return x


def _concat(call: Call, *inputs: Any) -> Any:
    return torch.cat(inputs, call.attribute("axis"))


def _split(call: Call, x: Any, sizes: Any = None) -> Any:
    axis = call.attribute("axis", 0)
    wanted = integers(sizes, call, call.attribute("split"))
    if wanted is None:
        length, parts = x.shape[axis], call.attribute("num_outputs", call.num_outputs)
        wanted = [-(-length // parts)] * (length // -(-length // parts))
        wanted += [length - sum(wanted)] * (len(wanted) < parts)
    return tuple(torch.split(x, wanted, axis))


def _slice(call: Call, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    firsts, lasts = integers(starts, call) or [], integers(ends, call) or []
    along = integers(axes, call, range(len(firsts))) or []
    strides = integers(steps, call, [1] * len(firsts)) or []
    for axis, first, last, step in zip(along, firsts, lasts, strides, strict=True):
        # Python's own rules for slices are ONNX's: ends beyond the axis are cut, negative ones count from behind.
        size = x.shape[axis]
        end = None if step < 0 and last < -size else last
        picked = range(*slice(first, end, step).indices(size))
        x = x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64, device=x.device))
    return x


def _pad(call: Call, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    mode = call.attribute("mode", "constant")
    along = [axis % x.dim() for axis in integers(axes, call, range(x.dim())) or []]
    widths = integers(pads, call) or []
    pairs = [(0, 0)] * x.dim()
    for number, axis in enumerate(along):
        pairs[axis] = widths[number], widths[number + len(along)]
    if mode == "constant":
        return F.pad(x, torch_pads(pairs), value=0 if value is None else value.item())
    kind = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode]
    if any(before or behind for before, behind in pairs[:2]) or x.dim() < 3 or min(map(min, pairs)) < 0:
        raise call.refuse(f"mode {mode} on these axes")
    return F.pad(x, torch_pads(pairs[2:]), mode=kind)


def _gather(call: Call, x: Any, indices: Any) -> Any:
    axis = call.attribute("axis", 0) % x.dim()
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1)
    return x.index_select(axis, flat).reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _expand(call: Call, x: Any, shape: Any) -> Any:
    sizes = integers(shape, call) or []
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(sizes)))


def _tile(call: Call, x: Any, repeats: Any) -> Any:
    return x.repeat(integers(repeats, call) or [])


def _shape(call: Call, x: Any) -> Any:
    sizes = list(x.shape)[call.attribute("start", 0) : call.attribute("end")]
    return torch.tensor(sizes, dtype=torch.int64)


def _size(_call: Call, x: Any) -> Any:
    return torch.tensor(x.numel(), dtype=torch.int64)


def _constant_of_shape(call: Call, shape: Any) -> Any:
    value = call.attribute("value", np.zeros(1, np.float32))
    return torch.from_numpy(np.array(value)).reshape(()).repeat(integers(shape, call) or [])


def _cast(call: Call, x: Any) -> Any:
    return x.to(torch.from_numpy(np.empty(0, ir.DataType(call.attribute("to")).numpy())).dtype)


def _identity(_call: Call, x: Any) -> Any:
    return x


def _dropout(call: Call, x: Any, _ratio: Any = None, training: Any = None) -> Any:
    if training is not None and bool(training):
        raise call.refuse("training_mode true")
    return (x, torch.ones_like(x, dtype=torch.bool)) if call.num_outputs > 1 else x


def _depth_to_space(call: Call, x: Any) -> Any:
    batch, channels, height, width = x.shape
    block = call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    x = x.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(batch, channels // block**2, height * block, width * block)


def _space_to_depth(call: Call, x: Any) -> Any:
    batch, channels, height, width = x.shape
    block = call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, block)
    x = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(batch, channels * block**2, height // block, width // block)


OPERATORS: dict[str, Operator] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Cast": _cast,
    "Identity": _identity,
    "Dropout": _dropout,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
