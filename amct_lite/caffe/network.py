"""A Caffe network as data: its layers in running order, phase TEST, with every blob version named once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CaffeLayer", "CaffeNetwork"]


@dataclass(frozen=True)
class CaffeLayer:
    """One layer.

    Attributes:
        name: Its name in the prototxt.
        type: Its type by today's names, for example "Convolution" (V0 and V1 types are upgraded).
        bottoms: Its inputs' value names; see `CaffeNetwork.blobs`.
        tops: Its outputs' value names. A layer that works in place has another value name there than at its bottom.
        params: Its LayerParameter message, upgraded.
        blobs: Its weights, float32 arrays in the shapes that the caffemodel declares (old ones have four axes); ()
            where the layer has none or no caffemodel was given.
        line: Line of the prototxt where it starts, from 1; None where unknown.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: Any
    blobs: tuple[npt.NDArray[np.float32], ...] = ()
    line: int | None = None


@dataclass(frozen=True)
class CaffeNetwork:
    """A network for inference.

    Attributes:
        name: Its name; may be empty.
        inputs: Input blob -> shape, from `input`/`input_dim`/`input_shape` or Input layers, in order.
        layers: The layers of phase TEST without inputs, in the file's order.
        outputs: Blobs that no layer consumes, in order: Caffe's own rule for a net's outputs.
        blobs: Blob's Caffe name -> value name of its last version. In-place layers make new versions of a blob; the
            last one carries the blob's own name, earlier ones are `{blob}#{n}` with n from 1. An input blob that is
            changed in place keeps its name as input, and there the later versions are `{blob}#{n}`.
        prototxt: Where the network came from.
        caffemodel: Where its weights came from; None without.
        proto: The prototxt as NetParameter, as read (not upgraded): what a written pair starts from.
        weights: The caffemodel as NetParameter, as read; None without.
    """

    name: str
    inputs: dict[str, tuple[int, ...]]
    layers: tuple[CaffeLayer, ...]
    outputs: tuple[str, ...]
    blobs: dict[str, str]
    prototxt: Path
    caffemodel: Path | None
    proto: Any
    weights: Any
