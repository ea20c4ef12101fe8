"""Translators: Eltwise, Axpy, Concat, Slice, Split."""

import numpy as np

from amct_lite.caffe.layers.axes import canonical_axis, free_batch
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]

_PROD, _SUM, _MAX = 0, 1, 2  # EltwiseParameter.EltwiseOp


def _eltwise(translation: Translation, layer: CaffeLayer) -> None:
    """Eltwise: the product, the weighted sum (`coeff`, 1 where left out) or the maximum of bottoms of one shape."""
    param = layer.params.eltwise_param
    coefficients = list(param.coeff)
    shapes = [translation.shape(bottom) for bottom in layer.bottoms]
    if len(shapes) < 2 or any(shape != shapes[0] for shape in shapes):
        raise unsupported(layer, f"It needs two or more bottoms of one shape; it has {shapes}.", "Correct its bottoms.")
    if coefficients and (param.operation == _PROD or len(coefficients) != len(shapes)):
        raise unsupported(
            layer,
            f"It has {len(coefficients)} coefficients and {len(shapes)} bottoms.",
            "Give coeff only for SUM, one for each bottom.",
        )
    values = [translation.value(bottom) for bottom in layer.bottoms]
    if param.operation == _SUM:
        for index, coefficient in enumerate(coefficients):
            if coefficient != 1:
                factor = translation.constant(layer, f"coeff_{index}", np.float32(coefficient))
                values[index] = translation.node("Mul", [values[index], factor])
        operator = "Add" if len(values) == 2 else "Sum"
        value = translation.node(operator, values, name=layer.name)
    elif param.operation == _MAX:
        value = translation.node("Max", values, name=layer.name)
    else:
        value = values[0]
        for other in values[1:-1]:
            value = translation.node("Mul", [value, other])
        value = translation.node("Mul", [value, values[-1]], name=layer.name)
    translation.bind(layer.tops[0], value, shapes[0])


def _concat(translation: Translation, layer: CaffeLayer) -> None:
    """Concat: the bottoms one after the other along `axis` (of old, `concat_dim`); all other sizes are equal."""
    param = layer.params.concat_param
    shapes = [translation.shape(bottom) for bottom in layer.bottoms]
    given = param.concat_dim if param.HasField("concat_dim") else param.axis
    axis = canonical_axis(layer, given, len(shapes[0]))
    sizes = [shape[axis] if axis < len(shape) else None for shape in shapes]
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(others) != 1 or len({len(shape) for shape in shapes}) != 1:
        raise unsupported(
            layer, f"Its bottoms, {shapes}, differ in more than axis {axis}.", "Correct its bottoms or its axis."
        )
    if len(shapes) > 1 and None in sizes:
        raise free_batch(layer, "Along axis 0 the batch must be fixed.")
    values = [translation.value(bottom) for bottom in layer.bottoms]
    value = translation.node("Concat", values, {"axis": axis}, name=layer.name) if len(values) > 1 else values[0]
    total = sizes[0] if len(sizes) == 1 else sum(size or 0 for size in sizes)
    translation.bind(layer.tops[0], value, (*shapes[0][:axis], total, *shapes[0][axis + 1 :]))


def _slice(translation: Translation, layer: CaffeLayer) -> None:
    """Slice: the bottom cut along `axis` (of old, `slice_dim`) at `slice_point`, or without it in equal parts."""
    param = layer.params.slice_param
    shape = translation.shape(layer.bottoms[0])
    value = translation.value(layer.bottoms[0])
    if len(layer.tops) == 1:
        translation.bind(layer.tops[0], value, shape)
        return
    axis = canonical_axis(layer, param.slice_dim if param.HasField("slice_dim") else param.axis, len(shape))
    size = shape[axis]
    if size is None:
        raise free_batch(layer, "Along axis 0 the batch must be fixed.")
    count = len(layer.tops)
    points = list(param.slice_point) or [size * i // count for i in range(1, count)]
    sizes = [after - before for before, after in zip([0, *points], [*points, size], strict=True)]
    if len(sizes) != count or min(sizes) < 1 or (not param.slice_point and size % count):
        raise unsupported(
            layer,
            f"Axis {axis} of size {size} cannot be cut into {count} tops at {points}.",
            "Give one slice_point less than tops, rising, or a size that the number of tops divides.",
        )
    split = translation.constant(layer, "split", np.array(sizes, np.int64))
    first = translation.node("Split", [value, split], {"axis": axis}, name=layer.name, num_outputs=count)
    producer = first.producer()
    outputs = producer.outputs if producer is not None else ()
    for top, output, part in zip(layer.tops, outputs, sizes, strict=True):
        translation.bind(top, output, (*shape[:axis], part, *shape[axis + 1 :]))


def _axpy(translation: Translation, layer: CaffeLayer) -> None:
    """Axpy of SENet: a factor for each image and channel times the second bottom, plus the third."""
    shapes = [translation.shape(bottom) for bottom in layer.bottoms]
    images = shapes[1:]
    if len(images) != 2 or images[0] != images[1] or shapes[0] not in (images[0][:2], (*images[0][:2], 1, 1)):
        raise unsupported(
            layer,
            f"It needs a factor for each channel and two images of one shape; its bottoms have {shapes}.",
            "Correct its bottoms.",
        )
    factor, first, second = (translation.value(bottom) for bottom in layer.bottoms)
    if len(shapes[0]) == 2:
        factor = translation.node(
            "Unsqueeze", [factor, translation.constant(layer, "axes", np.array([2, 3], np.int64))]
        )
    scaled = translation.node("Mul", [factor, first])
    translation.bind(layer.tops[0], translation.node("Add", [scaled, second], name=layer.name), shapes[1])


def _split(translation: Translation, layer: CaffeLayer) -> None:
    """Split: every top is the bottom."""
    for top in layer.tops:
        translation.bind(top, translation.value(layer.bottoms[0]), translation.shape(layer.bottoms[0]))


TRANSLATORS: dict[str, Translator] = {
    "Axpy": _axpy,
    "Concat": _concat,
    "Eltwise": _eltwise,
    "Slice": _slice,
    "Split": _split,
}
