"""The inputs of a network: the deploy forms `input:` and `type: "Input"`, and what else can stand for them."""

import math
from typing import Any

from amct_lite.errors import ModelError

__all__ = ["DEPLOY_REMEDY", "is_input_layer", "layer_inputs", "network_inputs"]

_NO_SHAPE = frozenset(
    ("AnnotatedData", "Data", "DenseImageData", "HDF5Data", "ImageData", "ImageSegData", "VideoData", "WindowData")
)
_WITH_SHAPE = frozenset(("DummyData", "Input", "MemoryData"))
DEPLOY_REMEDY = (
    'Pass the network\'s deploy prototxt, which begins with `input:` or with a layer of type "Input" in place of the '
    "data layers; if there is none, replace them so yourself and leave out the losses."
)
_MAX_AXES = 32  # Caffe's own limits
_MAX_VALUES = 2**31


def network_inputs(network: Any) -> dict[str, tuple[int, ...]]:
    """Inputs that the network itself declares: `input` with `input_shape`, or with four `input_dim` each.

    Raises:
        ModelError: Their shapes are missing, too many or impossible, or a name comes twice.
    """
    names = list(network.input)
    if network.input_shape:
        shapes = [tuple(shape.dim) for shape in network.input_shape]
        declared = f"{len(shapes)} input_shape"
    else:
        dims = list(network.input_dim)
        shapes = [tuple(dims[start : start + 4]) for start in range(0, len(dims), 4)]
        declared = f"{len(dims)} input_dim"
        if len(dims) % 4:
            shapes = []
    if len(names) != len(shapes):
        raise ModelError(
            f"the network has {len(names)} inputs and {declared}.",
            remedy="Give one input_shape, or four input_dim, for each `input`.",
        )
    inputs: dict[str, tuple[int, ...]] = {}
    for name, shape in zip(names, shapes, strict=True):
        if name in inputs:
            raise ModelError(f"the network declares the input {name!r} twice.", remedy="Remove one of the two.")
        inputs[name] = _checked(shape, name, None, None)
    return inputs


def is_input_layer(layer: Any) -> bool:
    """Whether a layer brings data from outside, so that its tops are the network's inputs."""
    return layer.type in _WITH_SHAPE or layer.type in _NO_SHAPE


def layer_inputs(layer: Any, line: int | None) -> dict[str, tuple[int, ...]]:
    """The tops of a data layer and their shapes.

    Args:
        layer: A layer for which `is_input_layer` holds. Besides Input these are DummyData and MemoryData, whose shapes
            the prototxt gives, and the data layers of training, which have none there and are refused.
        line: Its line.

    Raises:
        ModelError: The prototxt does not give a shape for each top.
    """
    tops = list(layer.top)
    shapes = _declared_shapes(layer)
    if len(shapes) == 1:
        shapes *= len(tops)
    if not tops or len(shapes) != len(tops):
        where = layer.type if line is None else f"{layer.type}, line {line}:"
        cause = (
            "reads a data base or a list of files, whose shape the prototxt does not have"
            if layer.type in _NO_SHAPE
            else f"has {len(tops)} tops and {len(shapes)} shapes"
        )
        raise ModelError(f"{where} {cause}.", layer=layer.name, remedy=DEPLOY_REMEDY)
    return {top: _checked(shape, top, layer.name, line) for top, shape in zip(tops, shapes, strict=True)}


def _declared_shapes(layer: Any) -> list[tuple[int, ...]]:
    if layer.type == "Input":
        return [tuple(shape.dim) for shape in layer.input_param.shape]
    if layer.type == "DummyData":
        dummy = layer.dummy_data_param
        if dummy.shape:
            return [tuple(shape.dim) for shape in dummy.shape]
        return list(zip(dummy.num, dummy.channels, dummy.height, dummy.width, strict=False))
    if layer.type == "MemoryData":
        memory = layer.memory_data_param
        data = (memory.batch_size, memory.channels, memory.height, memory.width)
        return [data, (memory.batch_size,)][: max(len(layer.top), 1)] if all(data) else []
    return []


def _checked(shape: tuple[int, ...], blob: str, layer: str | None, line: int | None) -> tuple[int, ...]:
    if len(shape) > _MAX_AXES or any(size < 1 for size in shape) or math.prod(shape) >= _MAX_VALUES:
        where = "" if line is None else f"line {line}: "
        shown = shape if len(shape) <= 8 else f"of {len(shape)} axes"
        raise ModelError(
            f"{where}the input {blob!r} has the impossible shape {shown}.",
            layer=layer,
            remedy="Give each size of the input as a number from 1.",
        )
    return shape
