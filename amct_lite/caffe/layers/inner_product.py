"""Translators: InnerProduct and Embed."""

import math

import numpy as np
import onnx_ir as ir

from amct_lite.caffe.layers.axes import canonical_axis, free_batch
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator

__all__ = ["TRANSLATORS"]


def _inner_product(translation: Translation, layer: CaffeLayer) -> None:
    """InnerProduct: all axes from `axis` on, as one vector, times the weight; the axes before it are a batch.

    The weight is (num_output, inputs), with `transpose` (inputs, num_output). The usual axis 1 becomes a Gemm, any
    other a MatMul, since there the batch has several axes or none.
    """
    param = layer.params.inner_product_param
    shape = translation.shape(layer.bottoms[0])
    axis = canonical_axis(layer, param.axis, len(shape))
    if None in shape[axis:]:
        raise free_batch(layer, "With axis 0 the batch must be fixed.")
    num_inputs = math.prod(int(size or 0) for size in shape[axis:])
    transposed = bool(param.transpose)
    weight_shape = (num_inputs, param.num_output) if transposed else (param.num_output, num_inputs)
    metadata = {"caffe_axis": str(axis), "caffe_transpose": str(transposed).lower()}
    if axis == 1:
        value = _gemm(translation, layer, weight_shape, metadata)
    else:
        value = _matmul(translation, layer, axis, weight_shape, metadata)
    translation.bind(layer.tops[0], value, (*shape[:axis], param.num_output))


def _gemm(
    translation: Translation, layer: CaffeLayer, weight_shape: tuple[int, int], metadata: dict[str, str]
) -> ir.Value:
    param = layer.params.inner_product_param
    data = translation.value(layer.bottoms[0])
    if len(translation.shape(layer.bottoms[0])) != 2:
        data = translation.node("Flatten", [data], {"axis": 1})
    inputs = [data, translation.weight(layer, 0, weight_shape, "weight")]
    if param.bias_term:
        inputs.append(translation.weight(layer, 1, (param.num_output,), "bias"))
    attributes = {"transB": 0 if param.transpose else 1}
    return translation.node("Gemm", inputs, attributes, name=layer.name, metadata=metadata)


def _matmul(
    translation: Translation,
    layer: CaffeLayer,
    axis: int,
    weight_shape: tuple[int, int],
    metadata: dict[str, str],
) -> ir.Value:
    param = layer.params.inner_product_param
    shape = translation.shape(layer.bottoms[0])
    data = translation.value(layer.bottoms[0])
    if axis != len(shape) - 1:
        # 0 keeps a size as it is, so a free batch stays free.
        target = translation.constant(layer, "vectors", np.array([0] * axis + [-1], np.int64))
        data = translation.node("Reshape", [data, target])
    if param.transpose:
        weight = translation.weight(layer, 0, weight_shape, "weight")
    else:
        weight = translation.constant(layer, "weight", translation.blob(layer, 0, weight_shape).T)
    value = translation.node("MatMul", [data, weight], name=layer.name, metadata=metadata)
    if param.bias_term:
        value = translation.node("Add", [value, translation.weight(layer, 1, (param.num_output,), "bias")])
    return value


def _embed(translation: Translation, layer: CaffeLayer) -> None:
    """Embed: each number, cut to an integer, picks a row of the weight, (input_dim, num_output); a bias is added."""
    param = layer.params.embed_param
    shape = translation.shape(layer.bottoms[0])
    weight = translation.weight(layer, 0, (param.input_dim, param.num_output), "weight")
    index = translation.node("Cast", [translation.value(layer.bottoms[0])], {"to": ir.DataType.INT64.value})
    value = translation.node("Gather", [weight, index], {"axis": 0}, name=layer.name)
    if param.bias_term:
        value = translation.node("Add", [value, translation.weight(layer, 1, (param.num_output,), "bias")])
    translation.bind(layer.tops[0], value, (*shape, param.num_output))


TRANSLATORS: dict[str, Translator] = {"Embed": _embed, "InnerProduct": _inner_product}
