"""Translators: Softmax, LogSoftmax, LRN, MVN, Normalize, Reduction, ArgMax; SPP is refused."""

import numpy as np
import onnx_ir as ir

from amct_lite.caffe.layers.axes import canonical_axis, free_batch, reshape, volume
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Shape, Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]


def _softmax(translation: Translation, layer: CaffeLayer) -> None:
    """Softmax: exp(x) over its sum along `axis`; LogSoftmax: the logarithm of it."""
    shape = translation.shape(layer.bottoms[0])
    axis = canonical_axis(layer, layer.params.softmax_param.axis, len(shape))
    value = translation.node(layer.type, [translation.value(layer.bottoms[0])], {"axis": axis})
    translation.bind(layer.tops[0], value, shape)


def _lrn(translation: Translation, layer: CaffeLayer) -> None:
    """LRN: x / (k + alpha / n * sum of x^2 over n neighbours) ^ beta.

    ACROSS_CHANNELS: the neighbours are local_size channels around, absent ones count as 0. WITHIN_CHANNEL: they are
    the local_size x local_size pixels around, padding counts in n as in an AVE pooling of stride 1, and k is 1
    whatever the prototxt says.
    """
    value, shape = translation.value(layer.bottoms[0]), translation.shape(layer.bottoms[0])
    params = layer.params.lrn_param
    size = params.local_size
    if size % 2 == 0 or len(shape) != 4:
        raise unsupported(
            layer, f"local_size {size} of a blob of {len(shape)} axes.", "Caffe has LRN for odd sizes and four axes."
        )
    if params.norm_region == params.NormRegion.Value("ACROSS_CHANNELS"):
        attributes = {"size": size, "alpha": params.alpha, "beta": params.beta, "bias": params.k}
        translation.bind(layer.tops[0], translation.node("LRN", [value], attributes), shape)
        return
    square = translation.node("Mul", [value, value])
    # A sum by LpPool: an AveragePool would be a layer of its own to whoever looks for quantizable ones.
    window = {"kernel_shape": [size, size], "pads": [size // 2] * 4, "strides": [1, 1], "p": 1}
    total = translation.node("LpPool", [square], window)
    scaled = translation.node("Mul", [total, translation.constant(layer, "alpha", params.alpha / size**2)])
    shifted = translation.node("Add", [scaled, translation.constant(layer, "k", 1.0)])
    factor = translation.node("Pow", [shifted, translation.constant(layer, "beta", -params.beta)])
    translation.bind(layer.tops[0], translation.node("Mul", [value, factor]), shape)


def _mvn(translation: Translation, layer: CaffeLayer) -> None:
    """MVN: x minus its mean, and over its standard deviation + eps, in each channel or across an image's channels.

    The first axis is the batch and the second the channels; the top always has four axes.
    """
    value, shape = translation.value(layer.bottoms[0]), translation.shape(layer.bottoms[0])
    params = layer.params.mvn_param
    axes = list(range(1 if params.across_channels else 2, len(shape)))
    if len(shape) > 4:
        raise unsupported(layer, f"the blob has {len(shape)} axes.", "Caffe has MVN for up to four: reshape it before.")
    # A channel of one number is its own mean; ONNX would take no axes for all of them.
    mean = translation.node("ReduceMean", [value], {"axes": axes, "keepdims": 1}) if axes else value
    result = translation.node("Sub", [value, mean])
    if params.normalize_variance and axes:
        square = translation.node("Mul", [result, result])
        variance = translation.node("ReduceMean", [square], {"axes": axes, "keepdims": 1})
        deviation = translation.node("Sqrt", [variance])
        deviation = translation.node("Add", [deviation, translation.constant(layer, "eps", params.eps)])
        result = translation.node("Div", [result, deviation])
    full = (*shape, *[1] * (4 - len(shape)))
    if full != shape:
        result = reshape(translation, layer, result, full)
    translation.bind(layer.tops[0], result, full)


def _normalize(translation: Translation, layer: CaffeLayer) -> None:
    """Normalize (SSD): x / sqrt(sum of x^2 + eps) times a learnt scale.

    The sum runs over the channels of a pixel, or over the whole image (across_spatial); the scale is one number
    (channel_shared) or one for each channel.
    """
    value, shape = translation.value(layer.bottoms[0]), translation.shape(layer.bottoms[0])
    params = layer.params.norm_param
    axes = list(range(1, len(shape))) if params.across_spatial else [1]
    square = translation.node("Mul", [value, value])
    total = translation.node("ReduceSum", [square, translation.constant(layer, "axes", axes)], {"keepdims": 1})
    total = translation.node("Add", [total, translation.constant(layer, "eps", params.eps)])
    result = translation.node("Div", [value, translation.node("Sqrt", [total])])
    scale = translation.blob(layer, 0, (1 if params.channel_shared else shape[1] or 0,))
    scale = scale.reshape([1, -1] + [1] * (len(shape) - 2))
    result = translation.node("Mul", [result, translation.constant(layer, "scale", scale)])
    translation.bind(layer.tops[0], result, shape)


_REDUCTIONS = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}


def _reduction(translation: Translation, layer: CaffeLayer) -> None:
    """Reduction: sum, sum of magnitudes, of squares, or mean over all axes from `axis` on, times coeff."""
    value, shape = translation.value(layer.bottoms[0]), translation.shape(layer.bottoms[0])
    params = layer.params.reduction_param
    first = canonical_axis(layer, params.axis, len(shape))
    axes = list(range(first, len(shape)))
    operation = _REDUCTIONS[params.ReductionOp.Name(params.operation)]
    if operation == "ReduceSum":
        result = translation.node(operation, [value, translation.constant(layer, "axes", axes)], {"keepdims": 0})
    else:
        result = translation.node(operation, [value], {"axes": axes, "keepdims": 0})
    if params.coeff != 1:
        result = translation.node("Mul", [result, translation.constant(layer, "coeff", params.coeff)])
    translation.bind(layer.tops[0], result, shape[:first])


def _arg_max(translation: Translation, layer: CaffeLayer) -> None:
    """ArgMax: where the top_k largest values are, as floats; of equal ones the last comes first.

    With `axis` that axis shrinks to top_k indices, or values with out_max_val. Without it an image is one row of
    values, and the top is batch x 1 x top_k of indices, or batch x 2 x top_k of indices and then values, filled up
    with axes of 1 to as many as the bottom has.
    """
    value, shape = translation.value(layer.bottoms[0]), translation.shape(layer.bottoms[0])
    params = layer.params.argmax_param
    if params.HasField("axis"):
        axis = canonical_axis(layer, params.axis, len(shape))
        values, indices = _largest(translation, layer, value, shape, axis)
        result = (*shape[:axis], params.top_k, *shape[axis + 1 :])
        translation.bind(layer.tops[0], values if params.out_max_val else indices, result)
        return
    row: Shape = (shape[0], 1, volume(shape[1:]))
    values, indices = _largest(translation, layer, reshape(translation, layer, value, row), row, 2)
    top = translation.node("Concat", [indices, values], {"axis": 1}) if params.out_max_val else indices
    result = (shape[0], 2 if params.out_max_val else 1, params.top_k, *[1] * (len(shape) - 3))
    translation.bind(layer.tops[0], reshape(translation, layer, top, result), result)


def _largest(
    translation: Translation, layer: CaffeLayer, value: ir.Value, shape: Shape, axis: int
) -> tuple[ir.Value, ir.Value]:
    """The top_k values along an axis, and their indices as floats."""
    size, top_k = shape[axis], layer.params.argmax_param.top_k
    if size is None:
        raise free_batch(layer, "it searches along the batch.")
    if not 1 <= top_k <= size:
        raise unsupported(layer, f"top_k is {top_k} of {size} values.", f"Give a top_k from 1 to {size}.")
    if top_k == 1:
        attributes = {"axis": axis, "keepdims": 1, "select_last_index": 1}
        indices = translation.node("ArgMax", [value], attributes)
        values = translation.node("ReduceMax", [value], {"axes": [axis], "keepdims": 1})
    else:
        # TopK puts the first of equal values first and Caffe the last: search from the end.
        constants = [
            translation.constant(layer, role, np.array([number], np.int64))
            for role, number in (("start", -1), ("end", -size - 1), ("axis", axis), ("step", -1))
        ]
        backwards = translation.node("Slice", [value, *constants])
        count = translation.constant(layer, "top_k", np.array([top_k], np.int64))
        values = translation.node("TopK", [backwards, count], {"axis": axis}, num_outputs=2)
        node = values.producer()
        assert node is not None
        indices = translation.node("Sub", [translation.constant(layer, "last", np.int64(size - 1)), node.outputs[1]])
    return values, translation.node("Cast", [indices], {"to": int(ir.DataType.FLOAT)})


def _spp(translation: Translation, layer: CaffeLayer) -> None:
    """SPP: refused."""
    del translation
    raise unsupported(
        layer,
        "spatial pyramid pooling is not supported.",
        "Write it as Pooling and Flatten layers joined by a Concat, or cut the prototxt before this layer.",
    )


TRANSLATORS: dict[str, Translator] = {
    "ArgMax": _arg_max,
    "LRN": _lrn,
    "LogSoftmax": _softmax,
    "MVN": _mvn,
    "Normalize": _normalize,
    "Reduction": _reduction,
    "SPP": _spp,
    "Softmax": _softmax,
}
