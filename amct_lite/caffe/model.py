"""A Caffe pair as a Model: the same graph rooms, names and types as Caffe's."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.caffe.reading import read_network
from amct_lite.caffe.translate import translate
from amct_lite.errors import ModelError, ParameterError
from amct_lite.graph.layers import find_layers
from amct_lite.graph.model import Model
from amct_lite.graph.passes.batch_norm_folding import fold_batch_norms
from amct_lite.graph.passes.batch_norm_forward_folding import fold_batch_norms_forward
from amct_lite.graph.passes.unused import remove_unused
from amct_lite.types import Layer

__all__ = ["CaffeModel", "load_caffe_model"]

StrPath = str | os.PathLike[str]


class CaffeModel(Model):
    """A Model that came from a Caffe pair.

    Attributes:
        network: The network as read.
        folded: Caffe layer that disappeared (BatchNorm, Scale) -> the layer that took it in.
    """

    def __init__(
        self,
        ir_model: ir.Model,
        network: CaffeNetwork,
        digest: str,
        size_bytes: int,
        folded: dict[str, str],
        unfused_layers: Collection[str] = (),
    ) -> None:
        nodes = {node.name: node for node in ir_model.graph}
        uses = Counter(node.metadata_props.get("caffe_layer") for node in ir_model.graph)
        layers = [_in_caffe_terms(layer, nodes[layer.name], uses) for layer in find_layers(ir_model)]
        super().__init__(
            ir_model,
            network.prototxt,
            digest,
            size_bytes,
            layers=layers,
            weights_path=network.caffemodel,
            unfused_layers=unfused_layers,
        )
        self.network = network
        self.folded = folded


def load_caffe_model(
    prototxt: StrPath,
    caffemodel: StrPath | None,
    *,
    fold_batch_norm: bool = True,
    skip_fusion_layers: Collection[str] = (),
) -> CaffeModel:
    """Load a Caffe pair and bring it into the form that every other room knows.

    Args:
        prototxt: The network.
        caffemodel: Its weights.
        fold_batch_norm: Whether BatchNorm and Scale are folded into the layer before them.
        skip_fusion_layers: Names of the layers into which nothing is folded.

    Raises:
        AmctError: A file cannot be read, or a layer cannot be translated.
    """
    if caffemodel is None:
        raise ModelError(
            f"The Caffe network {prototxt} needs its weights.", remedy="Give the caffemodel as weights_file."
        )
    network = read_network(prototxt, caffemodel)
    graph = translate(network)
    names = {layer.name for layer in network.layers}
    for name in skip_fusion_layers:
        if name not in names:
            raise ParameterError(
                "The 'skip_fusion_layers' parameter of load_model must name layers of the model. "
                f"Got {name!r}, which '{prototxt}' does not have."
            )
    folded: dict[str, str] = {}
    if fold_batch_norm:
        before = _foldable_chains(graph)
        fold_batch_norms(graph, frozenset(skip_fusion_layers))
        remaining = {node.metadata_props.get("caffe_layer") for node in graph.graph}
        folded = {norm: layer for norm, layer in before.items() if norm not in remaining}
        folded |= fold_batch_norms_forward(graph, frozenset(skip_fusion_layers))
        remove_unused(graph)
    digest, size_bytes = hashlib.sha256(), 0
    for path in (Path(prototxt), Path(caffemodel)):
        data = path.read_bytes()
        digest.update(data)
        size_bytes += len(data)
    unfused = skip_fusion_layers if fold_batch_norm else names
    return CaffeModel(graph, network, digest.hexdigest(), size_bytes, folded, unfused)


def _foldable_chains(graph: ir.Model) -> dict[str, str]:
    """BatchNorm or Scale layer -> the layer at the start of the chain of such layers that it stands in."""
    found: dict[str, str] = {}
    for node in graph.graph:
        name = node.metadata_props.get("caffe_layer")
        source = node.inputs[0].producer() if node.op_type == "BatchNormalization" and node.inputs[0] else None
        if name is not None and source is not None:
            origin = source.metadata_props.get("caffe_layer", source.name or "")
            found[name] = found.get(origin, origin)
    return found


def _in_caffe_terms(layer: Layer, node: ir.Node, uses: Counter[str | None]) -> Layer:
    """The layer with Caffe's type, and for an inner product Caffe's transpose and axis.

    Args:
        layer: The layer as the graph shows it.
        node: Its node.
        uses: Caffe layer -> how many nodes it became.
    """
    terms = node.metadata_props
    if "caffe_type" not in terms:
        return layer
    changes: dict[str, object] = {"op_type": terms["caffe_type"]}
    twins = uses[terms.get("caffe_layer")]
    if twins > 1 and layer.blocked is None:
        changes["blocked"] = f"the layer {terms['caffe_layer']} works on {twins} bottoms at once with one weight"
    if "caffe_axis" in terms:
        changes["axis"] = int(terms["caffe_axis"])
        changes["transpose"] = terms.get("caffe_transpose", "").lower() in ("true", "1")
    return replace(layer, **changes)  # type: ignore[arg-type]
