"""Translators: Interp and Upsample."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from amct_lite.caffe.layers.axes import cut
from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Shape, Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]


def _interp(translation: Translation, layer: CaffeLayer) -> None:
    """Interp (DeepLab, PSPNet): bilinear, corner pixels on corner pixels, after cutting pad_beg and pad_end away.

    The new size is (old - 1) / shrink_factor + 1, and then old + (old - 1) * (zoom_factor - 1); or height and width.
    """
    value, shape, params = _image(translation, layer, "interp_param")
    if len(layer.bottoms) != 1 or params.pad_beg > 0 or params.pad_end > 0:
        raise unsupported(
            layer,
            f"{len(layer.bottoms)} bottoms, pad_beg {params.pad_beg}, pad_end {params.pad_end}.",
            "Interp is supported with one bottom and with pads that are 0 or negative, which cut the image.",
        )
    sizes = [size + params.pad_beg + params.pad_end for size in shape[2:] if size is not None]
    if min(sizes) < 1:
        raise unsupported(layer, f"the pads leave {sizes[0]} x {sizes[1]} pixels.", "Give smaller pads.")
    if params.pad_beg or params.pad_end:
        ranges = {2 + i: (-params.pad_beg, -params.pad_beg + size) for i, size in enumerate(sizes)}
        value = cut(translation, layer, value, ranges)
    new = _interp_sizes(layer, sizes)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    _resize(translation, layer, value, (*shape[:2], *sizes), new, attributes)


def _interp_sizes(layer: CaffeLayer, sizes: list[int]) -> list[int]:
    params = layer.params.interp_param
    shrink, zoom = params.HasField("shrink_factor"), params.HasField("zoom_factor")
    if not (shrink or zoom):
        new = [params.height, params.width]
    else:
        new = [
            _scaled(size, params.zoom_factor if zoom else 1, params.shrink_factor if shrink else 1) for size in sizes
        ]
    if min(new) < 1:
        raise unsupported(
            layer,
            f"it makes {new[0]} x {new[1]} pixels.",
            "Give height and width, a zoom_factor or a shrink_factor, each from 1 on.",
        )
    return new


def _scaled(size: int, zoom: int, shrink: int) -> int:
    if shrink < 1:
        return 0
    shrunk = (size - 1) // shrink + 1
    return int(shrunk + (shrunk - 1) * (zoom - 1))


def _upsample(translation: Translation, layer: CaffeLayer) -> None:
    """Upsample: each pixel becomes scale x scale pixels, or scale_h x scale_w.

    Ascend's has the numbers of pixels in stride, or stride_h and stride_w, and multiplies the values by scale.
    """
    value, shape, params = _image(translation, layer, "upsample_param")
    if len(layer.bottoms) != 1:
        raise unsupported(
            layer,
            "it puts values back where the mask of a Pooling layer says (SegNet), which is not supported.",
            "Use nearest or bilinear upsampling or a Deconvolution instead, or cut the prototxt before this layer.",
        )
    names = ("scale", "scale_h", "scale_w")
    strided = any(params.HasField(name) for name in ("stride", "stride_h", "stride_w"))
    if strided:
        names = ("stride", "stride_h", "stride_w")
        if params.HasField("scale") and params.scale != 1:
            value = translation.node("Mul", [value, translation.constant(layer, "scale", float(params.scale))])
    factors = [getattr(params, name) or getattr(params, names[0]) for name in names[1:]]
    if min(factors) < 1:
        raise unsupported(layer, f"the scales are {factors}.", "Give whole numbers from 1 on.")
    new = [size * factor for size, factor in zip(shape[2:], factors, strict=True) if size is not None]
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    _resize(translation, layer, value, shape, new, attributes)


def _image(translation: Translation, layer: CaffeLayer, parameter: str) -> tuple[ir.Value, Shape, Any]:
    shape = translation.shape(layer.bottoms[0])
    if len(shape) != 4:
        raise unsupported(layer, f"the blob has {len(shape)} axes.", "It needs batch, channels, height and width.")
    return translation.value(layer.bottoms[0]), shape, getattr(layer.params, parameter)


def _resize(
    translation: Translation,
    layer: CaffeLayer,
    value: ir.Value,
    shape: Shape,
    new: list[int],
    attributes: dict[str, str],
) -> None:
    old = [size for size in shape[2:] if size is not None]
    result = (*shape[:2], *new)
    if old != new:
        # Scales rather than sizes, which would fix the batch.
        scales = [1.0, 1.0, *(_scale(before, after) for before, after in zip(old, new, strict=True))]
        constant = translation.constant(layer, "scales", np.array(scales, np.float32))
        value = translation.node("Resize", [value, None, constant], attributes)
    translation.bind(layer.tops[0], value, result)


def _scale(old: int, new: int) -> float:
    """The float32 next to new / old for which float32(old * scale), rounded down as ONNX does, is new."""
    scale = np.float32(new / old)
    while math.floor(np.float32(old) * scale) < new:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)


TRANSLATORS: dict[str, Translator] = {"Interp": _interp, "Upsample": _upsample}
