"""Weights that layers share by `param { name: ... }`, by Caffe's rule: one blob, whoever brings it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["share_weights"]

Arrays = tuple[npt.NDArray[np.float32], ...]


def share_weights(layers: Sequence[Any], blobs: Mapping[str, Arrays]) -> dict[str, Arrays]:
    """Give every layer of a sharing group the same weights.

    A caffemodel may hold them for one layer of the group only. Where several bring them the last one counts, as each of
    them is copied into the one blob in turn.

    Args:
        layers: LayerParameter messages, in the file's order.
        blobs: Layer name -> the weights that the caffemodel has for it.

    Returns:
        Layer name -> weights.
    """
    latest: dict[str, npt.NDArray[np.float32]] = {}
    for layer in layers:
        for param, array in zip(layer.param, blobs.get(layer.name, ()), strict=False):
            if param.name:
                latest[param.name] = array
    shared = dict(blobs)
    for layer in layers:
        names = [param.name for param in layer.param]
        own = blobs.get(layer.name, ())
        if own:
            padded = [*names, *[""] * len(own)]
            shared[layer.name] = tuple(
                _like(latest.get(name, array), array) for name, array in zip(padded, own, strict=False)
            )
        elif names and all(name in latest for name in names):
            shared[layer.name] = tuple(latest[name] for name in names)
    return shared


def _like(array: npt.NDArray[np.float32], own: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The shared array in the layer's own shape; the layer's own where the sizes differ, which a later check tells."""
    return array.reshape(own.shape) if array.size == own.size else own
