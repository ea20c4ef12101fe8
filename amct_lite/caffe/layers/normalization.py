"""Translators: BatchNorm, Scale and Bias."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.caffe.layers.axes import canonical_axis, free_batch
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Shape, Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]


def _batch_norm(translation: Translation, layer: CaffeLayer) -> None:
    """BatchNorm: `(x - mean) / sqrt(variance + eps)` for each channel (axis 1).

    The weights are mean, variance and a factor by which both are divided; where it is 0, both count as 0. With
    `use_global_stats: false` mean and variance are those of the batch at hand. NVIDIA's `scale_bias` adds two weights,
    a scale and a bias for each channel.
    """
    param = layer.params.batch_norm_param
    shape = translation.shape(layer.bottoms[0])
    data = translation.value(layer.bottoms[0])
    if len(shape) < 2:
        raise unsupported(layer, f"Its input has {len(shape)} axes; channels are axis 1.", "Give it two axes or more.")
    if param.HasField("use_global_stats") and not param.use_global_stats:
        if param.scale_bias:
            raise unsupported(
                layer, "scale_bias goes with global statistics only.", "Put a Scale with bias_term after it instead."
            )
        value = _batch_statistics(translation, layer, data, len(shape))
    else:
        value = _global_statistics(translation, layer, data, int(shape[1] or 0))
    translation.bind(layer.tops[0], value, shape)


def _global_statistics(translation: Translation, layer: CaffeLayer, data: ir.Value, channels: int) -> ir.Value:
    param = layer.params.batch_norm_param
    mean, variance = (translation.blob(layer, index, (channels,)) for index in range(2))
    divisor = translation.blob(layer, 2, (1,))[0]
    factor = np.float32(0) if divisor == 0 else np.float32(1) / divisor
    constants = {
        "scale": translation.blob(layer, 3, (channels,)) if param.scale_bias else np.ones_like(mean),
        "bias": translation.blob(layer, 4, (channels,)) if param.scale_bias else np.zeros_like(mean),
        "mean": mean * factor,
        "variance": variance * factor,
    }
    inputs = [data, *(translation.constant(layer, role, array) for role, array in constants.items())]
    return translation.node("BatchNormalization", inputs, {"epsilon": float(param.eps)}, name=layer.name)


def _batch_statistics(translation: Translation, layer: CaffeLayer, data: ir.Value, num_axes: int) -> ir.Value:
    axes = [axis for axis in range(num_axes) if axis != 1]
    mean = translation.node("ReduceMean", [data], {"axes": axes, "keepdims": 1})
    centred = translation.node("Sub", [data, mean])
    squares = translation.node("Mul", [centred, centred])
    variance = translation.node("ReduceMean", [squares], {"axes": axes, "keepdims": 1})
    eps = translation.constant(layer, "eps", np.float32(layer.params.batch_norm_param.eps))
    spread = translation.node("Sqrt", [translation.node("Add", [variance, eps])])
    return translation.node("Div", [centred, spread], name=layer.name)


def _scale(translation: Translation, layer: CaffeLayer) -> None:
    """Scale: the first bottom times the second, or times a weight, plus a bias if `bias_term`.

    The factor's axes are those of the bottom from `axis` on: `num_axes` of them for a weight (-1: all that are left, 0:
    one number), as many as it has for a second bottom.
    """
    param = layer.params.scale_param
    shape = translation.shape(layer.bottoms[0])
    if len(layer.bottoms) == 2:
        axis, covered = _second_bottom(translation, layer, param.axis)
        factor = _unsqueezed(translation, layer, len(shape) - axis)
        value = translation.node("Mul", [translation.value(layer.bottoms[0]), factor], name=layer.name)
        if param.bias_term:
            addend = translation.blob(layer, 0, covered).reshape((*covered, *_ones(shape, axis, covered)))
            value = translation.node("Add", [value, translation.constant(layer, "bias", addend)])
    else:
        axis, covered = _covered(layer, shape, param.axis, param.num_axes)
        scale = translation.blob(layer, 0, covered)
        bias = translation.blob(layer, 1, covered) if param.bias_term else None
        value = _affine(translation, layer, axis, scale, bias)
    translation.bind(layer.tops[0], value, shape)


def _bias(translation: Translation, layer: CaffeLayer) -> None:
    """Bias: the first bottom plus the second, or plus a weight; axes as in Scale."""
    param = layer.params.bias_param
    shape = translation.shape(layer.bottoms[0])
    if len(layer.bottoms) == 2:
        axis, _ = _second_bottom(translation, layer, param.axis)
        addend = _unsqueezed(translation, layer, len(shape) - axis)
        value = translation.node("Add", [translation.value(layer.bottoms[0]), addend], name=layer.name)
    else:
        axis, covered = _covered(layer, shape, param.axis, param.num_axes)
        value = _affine(translation, layer, axis, None, translation.blob(layer, 0, covered))
    translation.bind(layer.tops[0], value, shape)


def _affine(
    translation: Translation,
    layer: CaffeLayer,
    axis: int,
    scale: npt.NDArray[np.float32] | None,
    bias: npt.NDArray[np.float32] | None,
) -> ir.Value:
    """The bottom times constants plus constants.

    One number a channel becomes a BatchNormalization with mean 0, variance 1 and epsilon 0, which is exact: so the
    passes that fold BatchNormalization into the layer before it fold this, too.
    """
    shape = translation.shape(layer.bottoms[0])
    value = translation.value(layer.bottoms[0])
    first = scale if scale is not None else bias
    covered = first.shape if first is not None else ()
    if axis == 1 and len(covered) == 1:
        ones, zeros = np.ones(covered, np.float32), np.zeros(covered, np.float32)
        constants = {
            "scale": ones if scale is None else scale,
            "bias": zeros if bias is None else bias,
            "mean": zeros,
            "variance": ones,
        }
        inputs = [value, *(translation.constant(layer, role, array) for role, array in constants.items())]
        return translation.node("BatchNormalization", inputs, {"epsilon": 0.0}, name=layer.name)
    trailing = _ones(shape, axis, covered)
    if scale is not None:
        factor = translation.constant(layer, "scale", scale.reshape((*covered, *trailing)))
        value = translation.node("Mul", [value, factor], name=layer.name)
    if bias is not None:
        addend = translation.constant(layer, "bias", bias.reshape((*covered, *trailing)))
        value = translation.node("Add", [value, addend], name=layer.name if scale is None else None)
    return value


def _covered(layer: CaffeLayer, shape: Shape, given: int, num_axes: int) -> tuple[int, tuple[int, ...]]:
    """The first axis of the bottom that a weight covers, and the weight's shape."""
    axis = canonical_axis(layer, given, len(shape))
    end = len(shape) if num_axes == -1 else axis + num_axes
    if num_axes < -1 or end > len(shape):
        raise unsupported(
            layer, f"Axis {given} and num_axes {num_axes} go beyond an input of {len(shape)} axes.", "Correct num_axes."
        )
    if None in shape[axis:end]:
        raise free_batch(layer, "With a weight along axis 0 the batch must be fixed.")
    return axis, tuple(int(size or 0) for size in shape[axis:end])


def _second_bottom(translation: Translation, layer: CaffeLayer, given: int) -> tuple[int, tuple[int, ...]]:
    """The first axis of the bottom that the second bottom covers, and the latter's shape."""
    shape, covered = (translation.shape(bottom) for bottom in layer.bottoms)
    axis = canonical_axis(layer, given, len(shape)) if covered else 0
    if shape[axis : axis + len(covered)] != covered:
        raise unsupported(
            layer,
            f"Its second bottom, {covered}, does not fit the first, {shape}, from axis {axis} on.",
            "Correct its bottoms or its axis.",
        )
    if layer.blobs and None in covered:
        raise free_batch(layer, "With a bias along axis 0 the batch must be fixed.")
    return axis, tuple(int(size or 0) for size in covered)


def _unsqueezed(translation: Translation, layer: CaffeLayer, num_axes: int) -> ir.Value:
    """The second bottom with axes of size 1 appended up to a number of axes, so that ONNX lines it up as Caffe does."""
    second, covered = translation.value(layer.bottoms[1]), translation.shape(layer.bottoms[1])
    if num_axes == len(covered) or not covered:
        return second
    axes = translation.constant(layer, "axes", np.arange(len(covered), num_axes, dtype=np.int64))
    return translation.node("Unsqueeze", [second, axes])


def _ones(shape: Shape, axis: int, covered: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (len(shape) - axis - len(covered)) if covered else ()


TRANSLATORS: dict[str, Translator] = {"BatchNorm": _batch_norm, "Bias": _bias, "Scale": _scale}
