"""Translators: Convolution and Deconvolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from amct_lite.caffe.layers.axes import canonical_axis, free_batch
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]

_MAX_SPATIAL_AXES = 3  # what onnxruntime's Conv and ConvTranspose compute


@dataclass(frozen=True)
class _Window:
    """Where a filter is put: one number for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    def attributes(self, group: int) -> dict[str, object]:
        return {
            "kernel_shape": self.kernel,
            "strides": self.stride,
            "pads": (*self.pad, *self.pad),
            "dilations": self.dilation,
            "group": group,
        }

    def convolved(self, size: int, axis: int) -> int:
        extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.pad[axis] - extent) // self.stride[axis] + 1

    def deconvolved(self, size: int, axis: int) -> int:
        extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return self.stride[axis] * (size - 1) + extent - 2 * self.pad[axis]


def _convolution(translation: Translation, layer: CaffeLayer) -> None:
    """Convolution: `size' = floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1`.

    The weight is (num_output, channels / group, *kernel). Every pair of a bottom and a top uses the same weights.
    """
    _translate(translation, layer, layer.params.convolution_param.group, transposed=False)


def _deconvolution(translation: Translation, layer: CaffeLayer) -> None:
    """Deconvolution: `size' = stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad`.

    The weight is (channels, num_output / group, *kernel), as ONNX has it.
    """
    _translate(translation, layer, layer.params.convolution_param.group, transposed=True)


def _depthwise(translation: Translation, layer: CaffeLayer) -> None:
    """ConvolutionDepthwise and DepthwiseConvolution of the forks: a Convolution with one group a channel.

    A `group` above 1 in the prototxt is taken as it is: some of these layers read it, others leave it out.
    """
    group = layer.params.convolution_param.group
    channels = translation.shape(layer.bottoms[0])[1]
    _translate(translation, layer, group if group > 1 else int(channels or 1), transposed=False)


def _translate(translation: Translation, layer: CaffeLayer, group: int, *, transposed: bool) -> None:
    param = layer.params.convolution_param
    for bottom, top in zip(layer.bottoms, layer.tops, strict=True):
        shape = translation.shape(bottom)
        axis = canonical_axis(layer, param.axis, len(shape))
        window = _window(layer, len(shape) - axis - 1)
        channels = shape[axis] or 0
        out_channels = param.num_output or (channels if group == channels else 0)
        if group < 1 or out_channels < 1 or channels % group or out_channels % group:
            raise unsupported(
                layer,
                f"Its {channels} channels and num_output {out_channels} cannot be divided into {group} groups.",
                "Make both positive multiples of group.",
            )
        rows, columns = (channels, out_channels // group) if transposed else (out_channels, channels // group)
        inputs = [
            _with_one_batch_axis(translation, layer, bottom, axis),
            translation.weight(layer, 0, (rows, columns, *window.kernel), "weight"),
        ]
        if param.bias_term:
            inputs.append(translation.weight(layer, 1, (out_channels,), "bias"))
        resized = window.deconvolved if transposed else window.convolved
        spatial = [resized(size or 0, i) for i, size in enumerate(shape[axis + 1 :])]
        if min(spatial) < 1:
            raise unsupported(
                layer,
                f"Its output would have the spatial sizes {spatial}, from an input of {shape[axis + 1 :]}.",
                "Give a larger input, or check kernel_size, pad, stride and dilation.",
            )
        operator = "ConvTranspose" if transposed else "Conv"
        value = translation.node(operator, inputs, window.attributes(group), name=layer.name)
        new_shape = (*shape[:axis], out_channels, *spatial)
        if axis != 1:
            target = translation.constant(layer, "shape", [int(size or 0) for size in new_shape])
            value = translation.node("Reshape", [value, target])
        translation.bind(top, value, new_shape)


def _with_one_batch_axis(translation: Translation, layer: CaffeLayer, bottom: str, axis: int) -> ir.Value:
    """The bottom with all axes before the channels as one, as Caffe sees it."""
    shape = translation.shape(bottom)
    if axis == 1:
        return translation.value(bottom)
    if None in shape:
        raise free_batch(layer, "With an axis other than 1 the batch must be fixed.")
    sizes = [int(size or 0) for size in shape]
    target = translation.constant(layer, "batched", [math.prod(sizes[:axis]), *sizes[axis:]])
    return translation.node("Reshape", [translation.value(bottom), target])


def _window(layer: CaffeLayer, num_axes: int) -> _Window:
    """The window by Caffe's rule: one number for all axes or one for each; with two axes `_h` and `_w` instead."""
    if not 1 <= num_axes <= _MAX_SPATIAL_AXES:
        raise unsupported(
            layer, f"It has {num_axes} spatial axes.", f"Only 1 to {_MAX_SPATIAL_AXES} can be computed; check axis."
        )
    param = layer.params.convolution_param
    window = _Window(
        kernel=_sizes(layer, "kernel_size", param.kernel_size, ("kernel_h", "kernel_w"), num_axes, None),
        stride=_sizes(layer, "stride", param.stride, ("stride_h", "stride_w"), num_axes, 1),
        pad=_sizes(layer, "pad", param.pad, ("pad_h", "pad_w"), num_axes, 0),
        dilation=_dilation(layer, num_axes),
    )
    if min(*window.kernel, *window.stride, *window.dilation) < 1:
        raise unsupported(layer, f"Kernel, stride and dilation must be positive: {window}.", "Correct the prototxt.")
    return window


def _dilation(layer: CaffeLayer, num_axes: int) -> tuple[int, ...]:
    """`dilation`, or what DeepLab's Caffe called it: `hole`, or `hole_h` and `hole_w`."""
    param = layer.params.convolution_param
    if len(param.dilation):
        return _sizes(layer, "dilation", param.dilation, None, num_axes, 1)
    return _sizes(layer, "hole", [param.hole] if param.HasField("hole") else [], ("hole_h", "hole_w"), num_axes, 1)


def _sizes(
    layer: CaffeLayer,
    name: str,
    repeated: Sequence[int],
    pair: tuple[str, str] | None,
    num_axes: int,
    default: int | None,
) -> tuple[int, ...]:
    param = layer.params.convolution_param
    if pair is not None and any(param.HasField(field) for field in pair):
        if num_axes != 2 or len(repeated):
            raise unsupported(
                layer,
                f"{pair[0]} and {pair[1]} need two spatial axes and no {name}.",
                f"Use {name}, once for each axis.",
            )
        return tuple(getattr(param, field) for field in pair)
    if len(repeated) == 0 and default is not None:
        return (default,) * num_axes
    if len(repeated) not in (1, num_axes):
        raise unsupported(
            layer,
            f"It gives {name} {len(repeated)} times for {num_axes} spatial axes.",
            "Give it once, or for each axis.",
        )
    return tuple(repeated) if len(repeated) == num_axes else tuple(repeated) * num_axes


TRANSLATORS: dict[str, Translator] = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _depthwise,
    "Deconvolution": _deconvolution,
    "DepthwiseConvolution": _depthwise,
}
