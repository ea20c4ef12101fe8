"""Cross-layer equalization of a model: which pairs of layers it may touch, and the model with their weights equalized.

The numbers are in `amct_lite.uniform.equalization`. The float function stays: only what is positively homogeneous may
lie between the layers of a pair, and nothing else may see the tensors between them.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.graph.constants import constant_tensor, is_private, replace_array
from amct_lite.graph.model import Model
from amct_lite.quantize.weight_rows import from_channels, num_input_channels, to_channels, weight_layout
from amct_lite.types import Layer, LayerKind
from amct_lite.uniform.equalization import equalize, magnitudes

__all__ = ["LayerPair", "equalized_model", "find_pairs"]


@dataclass(frozen=True)
class LayerPair:
    """Two layers between which channels may be scaled.

    Attributes:
        first: The layer whose outputs are divided.
        second: The layer whose inputs are multiplied.
    """

    first: Layer
    second: Layer


def find_pairs(model: Model) -> tuple[LayerPair, ...]:
    """The pairs that can be equalized, in graph order.

    A layer may be the second of one pair and the first of the next: convolution, depthwise, convolution are two pairs.

    Args:
        model: The float model.
    """
    nodes = {node.name: node for node in model.ir.graph}
    layers = {nodes[layer.name]: layer for layer in model.layers if _is_usable(nodes[layer.name], layer)}
    pairs = []
    for node, layer in layers.items():
        if not _gives_channels(node, layer):
            continue
        second = _layer_behind(node, layer, layers)
        if second is not None:
            pairs.append(LayerPair(layer, second))
    return tuple(pairs)


def equalized_model(model: Model) -> Model:
    """The same function with equalized weights, and with a digest of its own.

    Args:
        model: The float model; it is not changed.
    """
    pairs = find_pairs(model)
    layers = list(dict.fromkeys(layer for pair in pairs for layer in (pair.first, pair.second)))
    indices = [(layers.index(pair.first), layers.index(pair.second)) for pair in pairs]
    weights = [_by_channels(model, layer) for layer in layers]
    for (_, second), pair in zip(indices, pairs, strict=True):
        if _flattened_between(pair):
            # Channel c of the first layer became neighbouring features of the second: taps of one channel.
            weights[second] = _with_taps(weights[second], weight_layout(pair.first).rows)
    scales = equalize([magnitudes(weight) for weight in weights], indices)
    graph = model.clone()
    for (first, second), exact in zip(indices, scales, strict=True):
        step = exact.astype(np.float32)
        weights[first] = weights[first] / step.reshape(*weights[first].shape[:2], 1, 1)
        weights[second] = weights[second] * step.reshape(weights[second].shape[0], 1, -1, 1)
        bias = layers[first].bias
        if bias is not None:
            own = model.weight(bias)
            replace_array(graph.graph.initializers[bias], (own.reshape(-1) / step).reshape(own.shape))
    for layer, weight in zip(layers, weights, strict=True):
        replace_array(graph.graph.initializers[layer.weight or ""], from_channels(weight, layer))
    digest = hashlib.sha256(f"{model.digest} cross-layer equalization".encode()).hexdigest()
    names = [layer.name for layer in layers]
    return Model(
        graph,
        model.path,
        digest,
        model.size_bytes,
        layers=model.layers,
        equalized_layers=names,
        unfused_layers=model.unfused_layers,
    )


def _by_channels(model: Model, layer: Layer) -> npt.NDArray[np.float32]:
    assert layer.weight is not None
    return to_channels(model.weight(layer.weight), layer)


def _with_taps(weight: npt.NDArray[np.float32], channels: int) -> npt.NDArray[np.float32]:
    """An inner product's weight by channels, its inputs taken as so many channels of several features each."""
    return weight.reshape(1, weight.shape[1], channels, -1)


def _is_inner_product(layer: Layer) -> bool:
    return layer.kind is LayerKind.INNER_PRODUCT


def _flattened_between(pair: LayerPair) -> bool:
    return _is_inner_product(pair.second) and not _is_inner_product(pair.first)


def _is_usable(node: ir.Node, layer: Layer) -> bool:
    """Whether its weight is its own, and its channels run along axis 1 (the last one, for MatMul)."""
    return (
        layer.weight is not None
        and layer.blocked is None
        and not layer.tied_with
        and layer.activation_index == 0
        and not layer.transpose
        and len(node.outputs) == 1
    )


def _gives_channels(node: ir.Node, layer: Layer) -> bool:
    """Whether its outputs can be scaled: it has no bias, or one that nothing else uses."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return bias is None or (layer.bias is not None and is_private(bias))


def _layer_behind(node: ir.Node, first: Layer, layers: dict[ir.Node, Layer]) -> Layer | None:
    """The layer that reads nothing but what comes through homogeneous functions from this one; None for none."""
    spatial, flattened = not _is_inner_product(first), False
    value = node.outputs[0]
    while is_private(value):
        ((reader, index),) = value.uses()
        if reader.graph is not node.graph or reader.domain != "" or index != 0:
            return None
        second = layers.get(reader)
        if second is not None:
            fits = (_is_inner_product(second) != spatial) and _channels_fit(first, second, flattened=flattened)
            return second if fits else None
        if spatial and _flattens(reader):
            spatial, flattened = False, True
        elif not _is_homogeneous(reader, spatial=spatial):
            return None
        value = reader.outputs[0]
    return None


def _channels_fit(first: Layer, second: Layer, *, flattened: bool) -> bool:
    outputs, inputs = weight_layout(first).rows, num_input_channels(second)
    return inputs % outputs == 0 if flattened else inputs == outputs


# f(s x) = s f(x) for every s > 0, element by element: a slope of its own for each channel does no harm.
_ELEMENTWISE = frozenset({"Identity", "LeakyRelu", "PRelu", "Relu"})
# The same for each channel by itself, where channels run along axis 1.
_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


def _is_homogeneous(node: ir.Node, *, spatial: bool) -> bool:
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if node.op_type == "Dropout":
        return len(node.inputs) < 3 or node.inputs[2] is None
    if node.op_type == "Pad":
        return spatial and _pads_channels_with_zeros(node)
    return node.op_type in _ELEMENTWISE or (spatial and node.op_type in _POOLS)


def _pads_channels_with_zeros(node: ir.Node) -> bool:
    """Whether it pads the axes behind that of the channels only, with zeros."""
    pads, *others = [constant_tensor(value) for value in node.inputs[1:4]]
    if pads is None or len(node.inputs) > 3 or node.attributes.get_string("mode", "constant") != "constant":
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None and (others[0] is None or others[0].numpy().any()):
        return False
    starts_and_ends = pads.numpy().reshape(2, -1)
    return not starts_and_ends[:, :2].any()


def _flattens(node: ir.Node) -> bool:
    """Whether (N, C, ...) becomes (N, C * ...), so that the features of a channel stay together and in order."""
    if node.op_type == "Flatten":
        return node.attributes.get_int("axis", 1) == 1
    if node.op_type != "Reshape" or node.inputs[0] is None or node.inputs[0].shape is None:
        return False
    tensor = constant_tensor(node.inputs[1])
    wanted = [] if tensor is None else [int(size) for size in tensor.numpy().reshape(-1)]
    dims = list(node.inputs[0].shape)
    if len(wanted) != 2 or len(dims) < 3:
        return False
    sizes = [int(dim) for dim in dims[1:] if isinstance(dim, int)]
    features = math.prod(sizes) if len(sizes) == len(dims) - 1 else None
    if features is not None and wanted[1] == features:
        return True
    keeps_batch = (wanted[0] == 0 and node.attributes.get_int("allowzero", 0) == 0) or wanted[0] == dims[0]
    return keeps_batch and wanted[1] in (-1, features)
