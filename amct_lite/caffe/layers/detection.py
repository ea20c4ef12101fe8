"""Translators: SSD's PriorBox and DetectionOutput; the layers of the R-CNN family are refused."""

import math

import numpy as np
import numpy.typing as npt

from amct_lite.caffe.detection_output import translate_detection_output
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]


def _prior_box(translation: Translation, layer: CaffeLayer) -> None:
    """PriorBox: boxes around the pixels of a feature map, a constant of shape (1, 2, pixels x priors x 4).

    A pixel (row, column) has its centre at (column + offset) x step. For each min_size there is a square of it, with
    max_size a square of the geometric mean of the two, and for each further aspect ratio (with flip its inverse too)
    a box of the min_size's area. Caffe rounds the sizes down to whole pixels. The first channel holds the corners
    divided by the image's size, cut to 0 .. 1 with clip; the second the variances.
    """
    params, (feature, image) = layer.params.prior_box_param, _prior_sizes(translation, layer)
    step_h, step_w = _steps(layer, feature, image)
    widths, heights = _box_sizes(layer)
    rows = (np.arange(feature[0], dtype=np.float32) + np.float32(params.offset)) * np.float32(step_h)
    columns = (np.arange(feature[1], dtype=np.float32) + np.float32(params.offset)) * np.float32(step_w)
    boxes = np.empty((feature[0], feature[1], len(widths), 4), np.float64)
    for axis, (centres, extents, size) in enumerate(
        ((columns[None, :, None], widths, image[1]), (rows[:, None, None], heights, image[0]))
    ):
        boxes[..., axis] = (centres - extents / 2) / size
        boxes[..., 2 + axis] = (centres + extents / 2) / size
    if params.clip:
        boxes = boxes.clip(0, 1)
    variances = np.broadcast_to(np.array(params.variance or [0.1], np.float64), boxes.shape)
    priors = np.stack([boxes.reshape(-1), variances.reshape(-1)])[None].astype(np.float32)
    translation.bind(layer.tops[0], translation.constant(layer, "priors", priors), priors.shape)


def _prior_sizes(translation: Translation, layer: CaffeLayer) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the feature map and of the image."""
    params = layer.params.prior_box_param
    shapes = [translation.shape(bottom)[2:] for bottom in layer.bottoms]
    feature = (shapes[0][0] or 0, shapes[0][1] or 0)
    if params.HasField("img_h") or params.HasField("img_w"):
        image = (params.img_h, params.img_w)
    elif params.HasField("img_size"):
        image = (params.img_size, params.img_size)
    elif len(shapes) > 1:
        image = (shapes[1][0] or 0, shapes[1][1] or 0)
    else:
        image = (0, 0)
    if min(*image, *feature) < 1:
        raise unsupported(
            layer, f"the image has {image[0]} x {image[1]} pixels.", "Give the image as a second bottom, or img_size."
        )
    return feature, image


def _steps(layer: CaffeLayer, feature: tuple[int, int], image: tuple[int, int]) -> tuple[float, float]:
    params = layer.params.prior_box_param
    if params.HasField("step_h") or params.HasField("step_w"):
        steps = (params.step_h, params.step_w)
    else:
        steps = (params.step, params.step)
    if min(steps) > 0:
        return steps
    return image[0] / feature[0], image[1] / feature[1]


def _box_sizes(layer: CaffeLayer) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Widths and heights of the boxes of one pixel, in pixels of the image."""
    params = layer.params.prior_box_param
    minimums, maximums = [int(size) for size in params.min_size], [int(size) for size in params.max_size]
    if not minimums or len(maximums) not in (0, len(minimums)) or len(params.variance) not in (0, 1, 4):
        raise unsupported(
            layer,
            f"{len(minimums)} min_size, {len(maximums)} max_size, {len(params.variance)} variances do not go together.",
            "Give a max_size for each min_size or none, and one variance or four.",
        )
    ratios = [1.0]
    for ratio in params.aspect_ratio:
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1 / ratio] if params.flip else [ratio]
    sizes: list[tuple[float, float]] = []
    for index, minimum in enumerate(minimums):
        sizes.append((minimum, minimum))
        if maximums:
            side = math.sqrt(minimum * maximums[index])
            sizes.append((side, side))
        sizes += [(minimum * math.sqrt(ratio), minimum / math.sqrt(ratio)) for ratio in ratios[1:]]
    widths, heights = np.array(sizes, np.float32).T
    return widths, heights


def _detection_output(translation: Translation, layer: CaffeLayer) -> None:
    """DetectionOutput: see `amct_lite.caffe.detection_output`."""
    translate_detection_output(translation, layer)


def _refuse(translation: Translation, layer: CaffeLayer) -> None:
    """Proposal, ROIPooling and their kin: what they make depends on the image, and each fork computes it in its way."""
    del translation
    raise unsupported(
        layer,
        "regions of interest are not supported.",
        "Cut the prototxt before this layer and compute the rest of the network outside.",
    )


TRANSLATORS: dict[str, Translator] = {
    "DetectionOutput": _detection_output,
    "PSROIAlign": _refuse,
    "PSROIPooling": _refuse,
    "PriorBox": _prior_box,
    "Proposal": _refuse,
    "ROIAlign": _refuse,
    "ROIPooling": _refuse,
}
