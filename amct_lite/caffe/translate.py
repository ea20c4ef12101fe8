"""A Caffe network becomes an ONNX graph."""

import contextlib
import difflib
from collections.abc import Mapping

import onnx_ir as ir

from amct_lite.caffe.layers import TRANSLATORS
from amct_lite.caffe.network import CaffeLayer, CaffeNetwork
from amct_lite.caffe.translation import Shape, Translation, Translator, unsupported
from amct_lite.errors import ModelError, ParameterError

__all__ = ["translate"]

_IR_VERSION = 8


def translate(
    network: CaffeNetwork,
    *,
    free_batch: bool = True,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> ir.Model:
    """Translate a network into stock ONNX operators that compute the same numbers.

    Each blob keeps its name, and the node that carries a layer has the layer's name; its metadata say `caffe_layer` and
    `caffe_type`, and for InnerProduct `caffe_axis` and `caffe_transpose`. An output that is an input at the same time
    becomes the output `{blob}#1`, since one name cannot stand for both.

    Args:
        network: The network with its weights.
        free_batch: Whether the first size of the inputs may vary at run time, called "N". It is fixed nevertheless
            where the inputs differ in it, or where a layer needs to know it (a concatenation along it, say).
        input_shapes: Input blob -> the shape to use instead of the prototxt's.

    Returns:
        The model, opset 17.

    Raises:
        ModelError: A layer is not supported, or its weights are missing or of another shape.
        ParameterError: `input_shapes` names no input, or gives it another number of axes.
    """
    shapes = _input_shapes(network, input_shapes or {})
    batches = {shape[0] if shape else None for shape in shapes.values()}
    if free_batch and len(batches) == 1 and None not in batches:
        # Where it fails, either some layer needs to know the batch, or the network cannot be translated at all, which
        # the second attempt says in full.
        with contextlib.suppress(ModelError):
            return _translate(network, {name: (None, *shape[1:]) for name, shape in shapes.items()})
    return _translate(network, dict(shapes))


def _input_shapes(network: CaffeNetwork, given: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    for name, shape in given.items():
        if name not in network.inputs or len(shape) != len(network.inputs[name]) or min(shape, default=1) < 1:
            raise ParameterError(
                "The 'input_shapes' parameter of translate must give inputs of the network shapes of as many axes, all "
                f"positive. Got {name!r}: {tuple(shape)}; the network's inputs are {network.inputs}."
            )
    return {name: tuple(given.get(name, shape)) for name, shape in network.inputs.items()}


def _translate(network: CaffeNetwork, inputs: Mapping[str, Shape]) -> ir.Model:
    translation = Translation(
        network.name,
        inputs,
        layer_names=[layer.name for layer in network.layers],
        value_names=[name for layer in network.layers for name in (*layer.bottoms, *layer.tops)],
    )
    for layer in network.layers:
        translation.add(layer, _translator(layer))
    for blob in network.outputs:
        name = network.blobs.get(blob, blob)
        value = translation.value(name)
        if value.is_graph_input():
            translation.bind(f"{name}#1", value, translation.shape(name))
            value = translation.value(f"{name}#1")
        translation.graph.outputs.append(value)
    return ir.Model(translation.graph, ir_version=_IR_VERSION, producer_name="amct_lite")


def _translator(layer: CaffeLayer) -> Translator:
    translator = TRANSLATORS.get(layer.type)
    if translator is not None:
        return translator
    folded = {known.lower(): known for known in TRANSLATORS}
    near = difflib.get_close_matches(layer.type.lower(), folded, n=1)
    hint = f"Did you mean {folded[near[0]]!r}? " if near else ""
    raise unsupported(
        layer,
        "This layer type is not known.",
        f"{hint}Replace it by layers of known types, cut the network before it and compute the rest yourself, or add a "
        "translator for it to amct_lite/caffe/layers.",
    )
