"""What Ascend's quantized operators compute, in numpy: the reference that deploy models are held to.

Data are int8 levels q = clip(rint(x * scale) + offset), where `scale` is the stored reciprocal of the grid's step. A
layer's accumulator is the int32 sum of weight * (q - offset), plus the int32 bias: on the device the compiler takes the
offset out of the sum by changing the bias, which gives the same number without padding, and with padding by the level
that stands for 0. Sums are made in float64, which holds all of them exactly, and checked against int32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

INT16 = np.iinfo(np.int16)
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class DequantParam:
    """AscendDequant's parameter, unpacked; each array has the shape (C,) or (1,)."""

    scale: np.ndarray
    shift: np.ndarray
    weight_offset: np.ndarray


@dataclass(frozen=True)
class Window:
    """Where a kernel is put: one number for each spatial axis, and the padding in front and behind."""

    strides: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    dilations: tuple[int, ...]


def quantize(x: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """AscendQuant: float32 -> int8, half to even, the offset after rounding."""
    return np.clip(np.rint(x * np.float32(scale)) + np.float32(offset), -128, 127).astype(np.int8)


def centred(levels: np.ndarray, offset: float) -> np.ndarray:
    assert levels.dtype == np.int8
    return levels.astype(np.float64) - offset


def unpack(param: np.ndarray) -> DequantParam:
    assert param.dtype == np.uint64 and param.ndim == 1
    return DequantParam(
        (param & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32),
        ((param >> np.uint64(32)) & np.uint64(0xFF)).astype(np.int64),
        ((param >> np.uint64(40)) & np.uint64(0xFF)).astype(np.uint8).view(np.int8),
    )


def dequantize(accumulator: np.ndarray, param: DequantParam, axis: int) -> np.ndarray:
    """AscendDequant: clip(floor(x / 2^N) if N else x) * deq_scale * 2^N; a shift anywhere makes the clip int16's."""
    assert not param.weight_offset.any(), "AMCT's weights are symmetric"
    scale, shift = (_along(values, accumulator.ndim, axis) for values in (param.scale, param.shift))
    bounds = INT16 if param.shift.any() else INT32
    shifted = np.where(shift > 0, np.floor(accumulator / 2.0**shift), accumulator)
    values = np.clip(shifted, bounds.min, bounds.max)
    return (values * scale.astype(np.float64) * 2.0**shift).astype(np.float32)


def _along(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def accumulated(sums: np.ndarray, bias: np.ndarray | None, axis: int) -> np.ndarray:
    """The int32 accumulator of sums that float64 holds exactly."""
    if bias is not None:
        assert bias.dtype == np.int32
        sums = sums + _along(bias.astype(np.float64), sums.ndim, axis)
    assert (sums == np.rint(sums)).all() and np.abs(sums).max(initial=0) <= INT32.max
    return sums.astype(np.int32)


def convolution(x: np.ndarray, weight: np.ndarray, window: Window, group: int) -> np.ndarray:
    """Sums of a convolution; x: float64 (N, C, ...), weight: int8 (O, C / group, ...)."""
    assert weight.dtype == np.int8
    windows = _windows(x, weight.shape[2:], window, fill=0.0)
    spatial, kernel_axes = windows.shape[2 : weight.ndim], tuple(range(weight.ndim, windows.ndim))
    pieces = []
    for part, kernel in zip(np.split(windows, group, axis=1), np.split(weight, group, axis=0), strict=True):
        sums = np.tensordot(part, kernel.astype(np.float64), axes=((1, *kernel_axes), tuple(range(1, weight.ndim))))
        pieces.append(np.moveaxis(sums, -1, 1))
    result = np.concatenate(pieces, axis=1)
    assert result.shape[2:] == spatial
    return result


def transposed_convolution(
    x: np.ndarray, weight: np.ndarray, window: Window, group: int, output_padding: Sequence[int]
) -> np.ndarray:
    """Sums of a transposed convolution: every place of the input adds its multiple of the kernel at its own place."""
    assert weight.dtype == np.int8
    kernel = weight.shape[2:]
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, window.dilations, strict=True)]
    full = [(n - 1) * s + e for n, s, e in zip(x.shape[2:], window.strides, extents, strict=True)]
    room = [size + extra for size, extra in zip(full, output_padding, strict=True)]
    pieces = []
    for part, values in zip(np.split(x, group, axis=1), np.split(weight, group, axis=0), strict=True):
        sums = np.zeros((x.shape[0], weight.shape[1], *room))
        for tap in np.ndindex(*kernel):
            product = np.moveaxis(np.tensordot(part, values[(..., *tap)].astype(np.float64), axes=(1, 0)), -1, 1)
            starts = [t * d for t, d in zip(tap, window.dilations, strict=True)]
            place = tuple(
                slice(start, start + (n - 1) * s + 1, s)
                for start, n, s in zip(starts, x.shape[2:], window.strides, strict=True)
            )
            sums[(slice(None), slice(None), *place)] += product
        pieces.append(sums)
    ends = [size - end for size, end in zip(room, window.ends, strict=True)]
    kept = tuple(slice(begin, end) for begin, end in zip(window.begins, ends, strict=True))
    return np.concatenate(pieces, axis=1)[(slice(None), slice(None), *kept)]


def average_pool(x: np.ndarray, kernel: Sequence[int], window: Window, divisors: np.ndarray | None) -> np.ndarray:
    """Means of centred levels: the int32 sum of each window over the number of its elements.

    Args:
        x: float64 array, (N, C, ...).
        kernel: The window's sizes.
        window: Where it is put.
        divisors: The number of elements by place; None to count those that lie in the image.
    """
    axes = tuple(range(-len(kernel), 0))
    sums = _windows(x, kernel, window, fill=0.0).sum(axis=axes)
    if divisors is None:
        divisors = _windows(np.ones((1, 1, *x.shape[2:])), kernel, window, fill=0.0).sum(axis=axes)
    return sums / divisors


def max_pool(x: np.ndarray, kernel: Sequence[int], window: Window) -> np.ndarray:
    """Maxima of int8 levels, or of floats."""
    lowest = -128 if x.dtype == np.int8 else -np.inf
    return _windows(x, kernel, window, fill=lowest).max(axis=tuple(range(-len(kernel), 0)))


def _windows(x: np.ndarray, kernel: Sequence[int], window: Window, fill: float) -> np.ndarray:
    """Views of shape (N, C, *places, *kernel)."""
    widths = [(0, 0), (0, 0), *zip(window.begins, window.ends, strict=True)]
    padded = np.pad(x, widths, constant_values=fill)
    extents = tuple((k - 1) * d + 1 for k, d in zip(kernel, window.dilations, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=tuple(range(2, x.ndim)))
    places = tuple(slice(None, None, s) for s in window.strides)
    taps = tuple(slice(None, None, d) for d in window.dilations)
    return views[(slice(None), slice(None), *places, *taps)]
