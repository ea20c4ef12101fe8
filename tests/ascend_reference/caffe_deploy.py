"""Runs Caffe deploy pairs: what is quantized by `arithmetic`, other layers one by one as amct_lite translates them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amct_lite.caffe.blobs import blob_array, trained_blobs
from amct_lite.caffe.network import CaffeLayer, CaffeNetwork
from amct_lite.caffe.reading import read_network
from amct_lite.pycaffe.execution import compile_network
from tests.ascend_reference import arithmetic
from tests.ascend_reference.arithmetic import DequantParam, Window

Arrays = dict[str, np.ndarray]


def run_deploy_pair(prototxt: Path, caffemodel: Path, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """Every value by its name (an in-place layer makes a new version of its blob, the last one has the blob's name)."""
    network = read_network(prototxt, caffemodel)
    stored = dict(trained_blobs(network.weights, {layer.name for layer in network.layers}))
    values, offsets = dict(feeds), {}
    for layer in network.layers:
        data = values[layer.bottoms[0]]
        blobs = [blob_array(b, layer=layer.name, index=i) for i, b in enumerate(stored.get(layer.name, ()))]
        if layer.type == "Quant":
            param = layer.params.quant_param
            offset = int(np.frombuffer(param.offset, np.int8)[0])
            assert param.with_offset == (offset != 0)
            offsets[layer.tops[0]] = offset
            values[layer.tops[0]] = arithmetic.quantize(data, param.scale, offset)
        elif layer.type == "DeQuant":
            values[layer.tops[0]] = _dequantize(layer, data, blobs)
        elif layer.type == "AntiQuant":
            assert data.dtype == np.int8
            values[layer.tops[0]] = data.astype(np.float32) * np.float32(layer.params.quant_param.scale)
        elif data.dtype == np.int8:
            values[layer.tops[0]] = _QUANTIZED[layer.type](layer, data, offsets[layer.bottoms[0]], blobs)
        else:
            values.update(run_layers(network, (layer,), values))
    return values


def run_layers(network: CaffeNetwork, layers: tuple[CaffeLayer, ...], values: Arrays) -> Arrays:
    """Some layers of a network in float, in place or not: what they make, by value name."""
    made = {top for layer in layers for top in layer.tops}
    read = dict.fromkeys(bottom for layer in layers for bottom in layer.bottoms if bottom not in made)
    inputs = {name: values[name].shape for name in read}
    part = replace(network, inputs=inputs, layers=layers, outputs=tuple(made), blobs={name: name for name in made})
    return compile_network(part, inputs, ["CPUExecutionProvider"]).run({name: values[name] for name in read})


def _dequantize(layer: CaffeLayer, data: np.ndarray, blobs: list[np.ndarray]) -> np.ndarray:
    assert len(blobs) == 3 and len({blob.shape for blob in blobs}) == 1
    scale, shift, offset = blobs
    param = layer.params.dequant_param
    assert param.channel_wise == (scale.size > 1)
    axis = -1 if param.layer_type == "InnerProduct" else 1
    return arithmetic.dequantize(data, DequantParam(scale, shift.astype(np.int64), offset), axis)


def _convolution(layer: CaffeLayer, data: np.ndarray, offset: int, blobs: list[np.ndarray]) -> np.ndarray:
    param = layer.params.convolution_param
    weight, bias = (*blobs, None)[:2]
    assert (bias is not None) == param.bias_term
    pads = _pair(param, "pad", 0)
    dilations = (tuple(param.dilation) * 2)[:2] or (1, 1)
    window = Window(_pair(param, "stride", 1), pads, pads, dilations)
    wide = arithmetic.centred(data, offset)
    if layer.type == "Deconvolution":
        sums = arithmetic.transposed_convolution(wide, weight, window, param.group, (0, 0))
    else:
        sums = arithmetic.convolution(wide, weight, window, param.group)
    return arithmetic.accumulated(sums, bias, 1)


def _inner_product(layer: CaffeLayer, data: np.ndarray, offset: int, blobs: list[np.ndarray]) -> np.ndarray:
    param = layer.params.inner_product_param
    weight, bias = (*blobs, None)[:2]
    assert (bias is not None) == param.bias_term
    axis = param.axis % data.ndim
    wide = arithmetic.centred(data, offset).reshape(*data.shape[:axis], -1)
    matrix = weight.reshape(weight.shape[-2:]).astype(np.float64)
    return arithmetic.accumulated(np.matmul(wide, matrix if param.transpose else matrix.T), bias, -1)


def _pooling(layer: CaffeLayer, data: np.ndarray, offset: int, _blobs: list[np.ndarray]) -> np.ndarray:
    param = layer.params.pooling_param
    if param.global_pooling:
        kernel, strides, pads = data.shape[2:], (1, 1), (0, 0)
    else:
        kernel, strides, pads = _pair(param, "kernel", 0), _pair(param, "stride", 1), _pair(param, "pad", 0)
    floor = param.round_mode == 1 or not param.ceil_mode
    ends, divisors = [], []
    for size, k, s, p in zip(data.shape[2:], kernel, strides, pads, strict=True):
        rest = size + 2 * p - k
        count = (rest if floor else rest + s - 1) // s + 1
        count -= bool(any(pads) and (count - 1) * s >= size + p)
        ends.append(max((count - 1) * s + k - size - p, 0))
        starts = np.arange(count) * s - p
        divisors.append(np.minimum(starts + k, size + p) - starts)
    window = Window(strides, pads, tuple(ends), (1, 1))
    if param.pool == 0:
        return arithmetic.max_pool(data, kernel, window)
    return arithmetic.average_pool(arithmetic.centred(data, offset), kernel, window, np.outer(*divisors))


def _pair(param: Any, name: str, default: int) -> tuple[int, int]:
    if param.HasField(f"{name}_h") or param.HasField(f"{name}_w"):
        return getattr(param, f"{name}_h"), getattr(param, f"{name}_w")
    given = getattr(param, "kernel_size" if name == "kernel" else name)
    numbers = list(given) if hasattr(given, "__len__") else [given]
    return (numbers * 2)[0] if numbers else default, (numbers * 2)[1] if numbers else default


_QUANTIZED = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "Deconvolution": _convolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
}
