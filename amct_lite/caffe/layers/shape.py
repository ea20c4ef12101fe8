"""Translators: Flatten, Reshape, Permute, Crop, Tile, BatchReindex, ShuffleChannel."""

import onnx_ir as ir

from amct_lite.caffe.layers.axes import canonical_axis, cut, free_batch, keep_batch, reshape, volume
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Shape, Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]


def _flatten(translation: Translation, layer: CaffeLayer) -> None:
    """Flatten: the axes from `axis` to `end_axis`, both included, become one; the others stay."""
    shape, params = translation.shape(layer.bottoms[0]), layer.params.flatten_param
    start = canonical_axis(layer, params.axis, len(shape))
    end = canonical_axis(layer, params.end_axis, len(shape)) + 1
    if end <= start:
        raise unsupported(
            layer, f"axis {start} lies after end_axis {end - 1}.", "Let end_axis be the axis or a later one."
        )
    flat = (*shape[:start], volume(shape[start:end]), *shape[end:])
    keep_batch(layer, shape, flat)
    translation.bind(layer.tops[0], reshape(translation, layer, translation.value(layer.bottoms[0]), flat), flat)


def _reshape(translation: Translation, layer: CaffeLayer) -> None:
    """Reshape: `num_axes` axes from `axis` on get `shape`, where 0 keeps a size and one -1 takes what is left.

    A negative axis counts from after the last one: -1 inserts the shape at the end. A num_axes of -1 means all axes.
    """
    shape, params = translation.shape(layer.bottoms[0]), layer.params.reshape_param
    rank = len(shape)
    start = params.axis if params.axis >= 0 else rank + params.axis + 1
    end = rank if params.num_axes == -1 else start + params.num_axes
    if not 0 <= start <= end <= rank:
        raise unsupported(
            layer,
            f"axis {params.axis} with num_axes {params.num_axes} does not fit a blob of {rank} axes.",
            "Correct reshape_param.",
        )
    result = (*shape[:start], *_new_sizes(layer, shape, start, end), *shape[end:])
    keep_batch(layer, shape, result)
    if volume(result) != volume(shape):
        raise unsupported(
            layer,
            f"the shape {_text(shape)} cannot become {_text(result)}, which has another number of values.",
            "Correct reshape_param or the input's shape.",
        )
    translation.bind(layer.tops[0], reshape(translation, layer, translation.value(layer.bottoms[0]), result), result)


def _new_sizes(layer: CaffeLayer, shape: Shape, start: int, end: int) -> list[int | None]:
    asked = list(layer.params.reshape_param.shape.dim)
    if asked.count(-1) > 1 or any(size < -1 for size in asked):
        raise unsupported(layer, f"the shape {asked} has sizes that are not known.", "Leave at most one -1.")
    sizes: list[int | None] = []
    for position, size in enumerate(asked):
        if size == 0 and start + position >= len(shape):
            raise unsupported(
                layer, f"size 0 at position {position} stands for an axis that the input lacks.", "Give the size."
            )
        sizes.append(shape[start + position] if size == 0 else size)
    if -1 in asked:
        # A free batch that is on both sides cancels; one that is not stays free.
        unknown = asked.index(-1)
        others = sizes[:unknown] + sizes[unknown + 1 :]
        known, total = volume([s for s in others if s is not None]), volume([s for s in shape[start:end] if s])
        if not known or total is None or total % known:
            raise unsupported(
                layer, f"the shape {_text(shape)} cannot be divided into {asked}.", "Correct reshape_param."
            )
        free = (None in shape[start:end]) and None not in others
        sizes[unknown] = None if free else total // known
    return sizes


def _permute(translation: Translation, layer: CaffeLayer) -> None:
    """Permute (SSD): the axes in a new order; those that `order` leaves out follow in their old one."""
    shape, order = translation.shape(layer.bottoms[0]), list(layer.params.permute_param.order)
    if len(set(order)) != len(order) or any(axis >= len(shape) for axis in order):
        raise unsupported(
            layer, f"order {order} names an axis twice or one that does not exist.", "Name each axis at most once."
        )
    order += [axis for axis in range(len(shape)) if axis not in order]
    result = tuple(shape[axis] for axis in order)
    if None in result[1:]:
        raise free_batch(layer, "the batch does not stay the first axis.")
    value = translation.node("Transpose", [translation.value(layer.bottoms[0])], {"perm": order})
    translation.bind(layer.tops[0], value, result)


def _crop(translation: Translation, layer: CaffeLayer) -> None:
    """Crop: from `axis` on the first bottom is cut to the second's sizes, starting at `offset`.

    No offset means 0, one is for all axes that are cut, otherwise there is one for each.
    """
    value, shape = translation.value(layer.bottoms[0]), translation.shape(layer.bottoms[0])
    reference, params = translation.shape(layer.bottoms[1]), layer.params.crop_param
    first = canonical_axis(layer, params.axis, len(shape))
    axes = range(first, len(shape))
    offsets = list(params.offset) or [0]
    if len(offsets) == 1:
        offsets *= len(axes)
    if len(offsets) != len(axes) or len(reference) != len(shape):
        raise unsupported(
            layer,
            f"{len(params.offset)} offsets do not fit {len(axes)} axes, or the bottoms differ in their number of axes.",
            "Give no offset, one, or one for each axis from `axis` on.",
        )
    result, ranges = list(shape), {}
    for axis, offset in zip(axes, offsets, strict=True):
        size, wanted = shape[axis], reference[axis]
        if size is None or wanted is None:
            if size is not wanted or offset:
                raise free_batch(layer, "it cuts the batch.")
            continue
        if offset + wanted > size:
            raise unsupported(
                layer,
                f"axis {axis} has {size} values, fewer than offset {offset} + {wanted}.",
                "Correct crop_param, or the input's size.",
            )
        result[axis] = wanted
        if wanted != size:
            ranges[axis] = (offset, offset + wanted)
    translation.bind(layer.tops[0], cut(translation, layer, value, ranges), tuple(result))


def _tile(translation: Translation, layer: CaffeLayer) -> None:
    """Tile: the blob `tiles` times after itself along `axis`."""
    shape, params = list(translation.shape(layer.bottoms[0])), layer.params.tile_param
    axis = canonical_axis(layer, params.axis, len(shape))
    if params.tiles < 1:
        raise unsupported(layer, f"tiles is {params.tiles}.", "Give a number of tiles from 1 on.")
    repeats = [1] * len(shape)
    repeats[axis] = params.tiles
    size = shape[axis]
    if size is None:
        raise free_batch(layer, "it repeats the batch.")
    shape[axis] = size * params.tiles
    value = translation.value(layer.bottoms[0])
    tiled = translation.node("Tile", [value, translation.constant(layer, "repeats", repeats)])
    translation.bind(layer.tops[0], tiled, tuple(shape))


def _batch_reindex(translation: Translation, layer: CaffeLayer) -> None:
    """BatchReindex: the images that the second bottom lists, in its order."""
    shape, listed = translation.shape(layer.bottoms[0]), translation.shape(layer.bottoms[1])
    if None in listed:
        raise free_batch(layer, "it makes a batch of its own.")
    images = translation.node("Cast", [translation.value(layer.bottoms[1])], {"to": int(ir.DataType.INT64)})
    images = reshape(translation, layer, images, (volume(listed),))
    value = translation.node("Gather", [translation.value(layer.bottoms[0]), images], {"axis": 0})
    translation.bind(layer.tops[0], value, (volume(listed), *shape[1:]))


def _shuffle_channel(translation: Translation, layer: CaffeLayer) -> None:
    """ShuffleChannel (ShuffleNet): channel j of group i becomes channel i of group j."""
    shape, group = translation.shape(layer.bottoms[0]), layer.params.shuffle_channel_param.group
    batch, channels, *rest = shape
    if channels is None or group < 1 or channels % group:
        raise unsupported(layer, f"{channels} channels do not divide into {group} groups.", "Correct the group.")
    value = translation.value(layer.bottoms[0])
    value = reshape(translation, layer, value, (batch, group, channels // group, *rest))
    value = translation.node("Transpose", [value], {"perm": [0, 2, 1, *range(3, len(shape) + 1)]})
    translation.bind(layer.tops[0], reshape(translation, layer, value, shape), shape)


def _text(shape: Shape) -> str:
    return " x ".join("N" if size is None else str(size) for size in shape) or "scalar"


TRANSLATORS: dict[str, Translator] = {
    "BatchReindex": _batch_reindex,
    "Crop": _crop,
    "Flatten": _flatten,
    "Permute": _permute,
    "Reshape": _reshape,
    "ShuffleChannel": _shuffle_channel,
    "Tile": _tile,
}
