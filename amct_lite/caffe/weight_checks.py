"""Whether every layer has the weights that its parameters ask for, as far as that is known without shapes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amct_lite.caffe.network import CaffeLayer, CaffeNetwork
from amct_lite.errors import ModelError

__all__ = ["check_weights"]


@dataclass(frozen=True)
class _MultipleOf:
    """Any positive multiple: the rest depends on the layer's input."""

    factor: int


Sizes = tuple[int | _MultipleOf | None, ...]
"""Number of values of each blob; None where it depends on the layer's input alone."""


def check_weights(network: CaffeNetwork) -> None:
    """Check each layer's blobs against its parameters: how many there are, and how many values each holds.

    Raises:
        ModelError: A layer lacks weights or has others than its parameters ask for.
    """
    lacking = [layer for layer in network.layers if layer.type in _EXPECTED and not layer.blobs and _expected(layer)]
    able = [layer for layer in network.layers if layer.type in _EXPECTED and _expected(layer)]
    if lacking and network.caffemodel is not None and len(lacking) == len(able):
        raise ModelError(
            f"'{network.caffemodel}' has weights for none of the {len(able)} layers of '{network.prototxt}' that need "
            f"some, for example {lacking[0].name!r}.",
            remedy="Pass the caffemodel that belongs to this prototxt: layers are matched by name.",
        )
    if lacking:
        raise ModelError(
            f"{_where(lacking[0])} has no weights; {len(lacking)} of {len(able)} layers that need some have none.",
            layer=lacking[0].name,
            remedy="Pass the caffemodel that belongs to this prototxt: layers are matched by name.",
        )
    for layer in able:
        _check_sizes(layer, _expected(layer))


def _check_sizes(layer: CaffeLayer, expected: Sizes) -> None:
    remedy = "The caffemodel belongs to another network, or the layer's parameters were changed: use a pair that fits."
    if len(layer.blobs) != len(expected):
        raise ModelError(
            f"{_where(layer)} takes {len(expected)} blobs of weights, the caffemodel has {len(layer.blobs)}.",
            layer=layer.name,
            remedy=remedy,
        )
    for index, (blob, size) in enumerate(zip(layer.blobs, expected, strict=True)):
        if isinstance(size, _MultipleOf):
            fits, wanted = blob.size > 0 and blob.size % size.factor == 0, f"a multiple of {size.factor} values"
        else:
            fits, wanted = size is None or blob.size == size, f"{size} values"
        if not fits:
            raise ModelError(
                f"{_where(layer)} asks for {wanted} in blob {index}, the caffemodel has {blob.size} "
                f"(shape {blob.shape}).",
                layer=layer.name,
                remedy=remedy,
            )


def _expected(layer: CaffeLayer) -> Sizes:
    return _EXPECTED[layer.type](layer)


def _where(layer: CaffeLayer) -> str:
    return layer.type if layer.line is None else f"{layer.type}, line {layer.line}:"


def _kernel_size(parameters: Any, blob_axes: int) -> int:
    """Number of positions in a kernel; one kernel_size stands for every spatial axis, of which there are mostly two."""
    if parameters.kernel_h and parameters.kernel_w:
        return int(parameters.kernel_h * parameters.kernel_w)
    sizes = list(parameters.kernel_size)
    if len(sizes) == 1:
        sizes *= max(blob_axes - 2, 1) if blob_axes else 2
    return math.prod(sizes)


def _convolution(layer: CaffeLayer) -> Sizes:
    parameters = layer.params.convolution_param
    axes = layer.blobs[0].ndim if layer.blobs else 0
    outputs = parameters.num_output
    if layer.type == "Deconvolution":
        outputs //= max(parameters.group, 1)
    weight = _MultipleOf(max(outputs * _kernel_size(parameters, axes), 1))
    return (weight, parameters.num_output) if parameters.bias_term else (weight,)


def _inner_product(layer: CaffeLayer) -> Sizes:
    parameters = layer.params.inner_product_param
    weight = _MultipleOf(max(parameters.num_output, 1))
    return (weight, parameters.num_output) if parameters.bias_term else (weight,)


def _embed(layer: CaffeLayer) -> Sizes:
    parameters = layer.params.embed_param
    weight = parameters.input_dim * parameters.num_output
    return (weight, parameters.num_output) if parameters.bias_term else (weight,)


def _batch_norm(layer: CaffeLayer) -> Sizes:
    channels = layer.blobs[0].size if layer.blobs else None
    return (channels, channels, 1)


def _scale(layer: CaffeLayer) -> Sizes:
    learned: Sizes = () if len(layer.bottoms) > 1 else (None,)
    size = layer.blobs[0].size if layer.blobs and learned else None
    return (*learned, size) if layer.params.scale_param.bias_term else learned


def _bias(layer: CaffeLayer) -> Sizes:
    return () if len(layer.bottoms) > 1 else (None,)


def _prelu(layer: CaffeLayer) -> Sizes:
    return (1,) if layer.params.prelu_param.channel_shared else (None,)


def _normalize(layer: CaffeLayer) -> Sizes:
    return (1,) if layer.params.norm_param.channel_shared else (None,)


def _lstm(layer: CaffeLayer) -> Sizes:
    outputs = layer.params.recurrent_param.num_output
    static: Sizes = (None,) if len(layer.bottoms) in (3, 5) else ()
    return (_MultipleOf(max(4 * outputs, 1)), 4 * outputs, *static, 4 * outputs * outputs)


_EXPECTED: dict[str, Callable[[CaffeLayer], Sizes]] = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "Deconvolution": _convolution,
    "DepthwiseConvolution": _convolution,
    "InnerProduct": _inner_product,
    "Embed": _embed,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
    "Bias": _bias,
    "PReLU": _prelu,
    "Normalize": _normalize,
    "LSTM": _lstm,
}
