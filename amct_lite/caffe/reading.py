"""From a prototxt and a caffemodel to a `CaffeNetwork`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.caffe.blobs import blob_array, read_caffemodel, trained_blobs
from amct_lite.caffe.inputs import DEPLOY_REMEDY, is_input_layer, layer_inputs, network_inputs
from amct_lite.caffe.network import CaffeLayer, CaffeNetwork
from amct_lite.caffe.phases import layers_at_test
from amct_lite.caffe.prototxt import read_prototxt
from amct_lite.caffe.sharing import share_weights
from amct_lite.caffe.upgrade import upgrade_layers
from amct_lite.caffe.weight_checks import check_weights
from amct_lite.caffe.wiring import drop_unread_losses, wire
from amct_lite.errors import ModelError

__all__ = ["check_weights", "read_network"]

Arrays = tuple[npt.NDArray[np.float32], ...]


def read_network(
    prototxt: str | os.PathLike[str], caffemodel: str | os.PathLike[str] | None = None, *, strict: bool = True
) -> CaffeNetwork:
    """Read a Caffe network for inference.

    The layers are those of phase TEST, level 0, upgraded to today's form. Losses and accuracies whose results nothing
    reads are left out, and so are the inputs that only they read: labels. A loss whose result is read stays, and the
    translation refuses it.

    Weights become float32. `blob_array` on a blob of `weights` gives the integers of an AMCT deploy model as they are,
    of which int32 and uint64 need not fit in float32.

    Args:
        prototxt: The network's definition, of today's or of an old form (V0, V1).
        caffemodel: Its weights, matched by layer name; layers that the prototxt does not have are ignored. None for a
            network without weights.
        strict: Whether a field of the prototxt that is not known is an error; otherwise it is a warning.

    Returns:
        The network.

    Raises:
        FileError: A file is missing or cannot be read.
        ModelError: A file is damaged or of another kind, or the two do not belong together. The message has the line.
    """
    prototxt = Path(prototxt).absolute()
    text = read_prototxt(prototxt, strict=strict)
    proto = text.proto
    try:
        layers = layers_at_test(upgrade_layers(proto, text.lines), proto.state)
        layers, labels = drop_unread_losses(layers)
        _check_names(layers)
        inputs = network_inputs(proto)
        for layer, line in layers:
            if is_input_layer(layer):
                _add_inputs(inputs, layer_inputs(layer, line), layer.name)
        inputs = {blob: shape for blob, shape in inputs.items() if blob not in labels}
        layers = [(layer, line) for layer, line in layers if not is_input_layer(layer)]
        if not inputs:
            raise ModelError("the network has no input.", remedy=DEPLOY_REMEDY)
        wiring = wire(inputs, layers)
    except ModelError as error:
        raise ModelError(f"'{prototxt}': {error.cause}", layer=error.layer, remedy=error.remedy) from error

    weights = None if caffemodel is None else read_caffemodel(Path(caffemodel).absolute())
    blobs = _weights_by_layer(layers, weights)
    network = CaffeNetwork(
        name=proto.name,
        inputs=inputs,
        layers=tuple(
            CaffeLayer(layer.name, layer.type, bottoms, tops, layer, blobs.get(layer.name, ()), line)
            for (layer, line), bottoms, tops in zip(layers, wiring.bottoms, wiring.tops, strict=True)
        ),
        outputs=wiring.outputs,
        blobs=wiring.blobs,
        prototxt=prototxt,
        caffemodel=None if caffemodel is None else Path(caffemodel).absolute(),
        proto=proto,
        weights=weights,
    )
    if weights is not None:
        check_weights(network)
    return network


def _check_names(layers: Sequence[tuple[Any, int | None]]) -> None:
    """Check that each layer has a type, and a name of its own."""
    lines: dict[str, int | None] = {}
    for layer, line in layers:
        if not layer.type:
            raise ModelError(f"line {line}: the layer has no type.", layer=layer.name, remedy="Give it its type.")
        if not layer.name:
            raise ModelError(f"line {line}: a layer of type {layer.type} has no name.", remedy="Give it a name.")
        if layer.name in lines:
            raise ModelError(
                f"lines {lines[layer.name]} and {line}: two layers have this name.",
                layer=layer.name,
                remedy="Give each layer a name of its own: weights and quantization factors are matched by it.",
            )
        lines[layer.name] = line


def _add_inputs(inputs: dict[str, tuple[int, ...]], more: Mapping[str, tuple[int, ...]], layer: str) -> None:
    for blob, shape in more.items():
        if blob in inputs:
            raise ModelError(
                f"its top blob {blob!r} is made by several layers.", layer=layer, remedy="Remove one of them."
            )
        inputs[blob] = shape


def _weights_by_layer(layers: Sequence[tuple[Any, int | None]], weights: Any) -> dict[str, Arrays]:
    """Each layer's weights: the caffemodel's, otherwise those that the prototxt itself holds."""
    names = {layer.name for layer, _ in layers}
    found = {layer.name: layer.blobs for layer, _ in layers if layer.blobs}
    if weights is not None:
        found.update(trained_blobs(weights, names))
    arrays = {name: _arrays(name, blobs) for name, blobs in found.items()}
    return share_weights([layer for layer, _ in layers], arrays)


def _arrays(layer: str, blobs: Any) -> Arrays:
    return tuple(
        blob_array(blob, layer=layer, index=index).astype(np.float32, copy=False) for index, blob in enumerate(blobs)
    )
