"""What a model is: a normalised graph, where it came from, and its layers."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.errors import AmctError, ModelError, ParameterError
from amct_lite.graph.cloning import clone_ir
from amct_lite.graph.digest import FileDigest
from amct_lite.graph.layers import find_layers
from amct_lite.graph.passes.batch_norm_folding import fold_batch_norms
from amct_lite.graph.passes.batch_norm_forward_folding import fold_batch_norms_forward
from amct_lite.graph.passes.constant_folding import fold_constants
from amct_lite.graph.passes.constant_nodes import lift_constants
from amct_lite.graph.passes.gemm_scaling import fold_gemm_scaling
from amct_lite.graph.passes.initializer_inputs import drop_initializer_inputs
from amct_lite.graph.passes.naming import name_nodes
from amct_lite.graph.passes.opset import raise_opset
from amct_lite.graph.passes.pad_folding import fold_pads
from amct_lite.graph.passes.shapes import infer_shapes
from amct_lite.graph.passes.unused import remove_unused
from amct_lite.graph.raw_weights import put_back_weights
from amct_lite.graph.reading import ModelFile, read_model_file
from amct_lite.graph.saving import save_ir
from amct_lite.types import Layer

__all__ = ["Model", "load_model", "save_with_unique_names"]

_INVALID = "Export it again, or check it with onnx.checker to see where it went wrong."


class Model:
    """A normalised graph and where it came from; treat it as read-only and edit a `clone()`.

    Attributes:
        ir: The normalised graph.
        path: The file it was loaded from.
        size_bytes: Size of that file and its external data.
        layers: The quantizable operators of the main graph, in graph order.
        weights_path: The file that holds the weights of a format that keeps them apart; None for ONNX.
        equalized_layers: Names of the layers whose weights cross-layer equalization has scaled.
        balance_factors: Layer -> the factors by which its input is divided in front of it and its weight multiplied,
            one for each input channel.
        unfused_layers: Names of the layers into which nothing may be folded.
    """

    def __init__(
        self,
        ir_model: ir.Model,
        path: Path,
        digest: str | FileDigest,
        size_bytes: int,
        *,
        layers: Sequence[Layer] | None = None,
        weights_path: Path | None = None,
        equalized_layers: Collection[str] = (),
        balance_factors: Mapping[str, tuple[float, ...]] | None = None,
        unfused_layers: Collection[str] = (),
    ) -> None:
        self.ir = ir_model
        self.path = path
        self._digest = digest
        self.size_bytes = size_bytes
        self.layers: tuple[Layer, ...] = tuple(find_layers(ir_model) if layers is None else layers)
        self.weights_path = weights_path
        self.equalized_layers = frozenset(equalized_layers)
        self.balance_factors = dict(balance_factors or {})
        self.unfused_layers = frozenset(unfused_layers)
        self._layers_by_name = {layer.name: layer for layer in self.layers}

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, {len(self.layers)} layers)"

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of that file and its external data.

        Raises:
            FileError: They have changed since, or can be read no more.
        """
        return self._digest if isinstance(self._digest, str) else self._digest.hexdigest()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it was loaded from, external data among them."""
        if isinstance(self._digest, FileDigest):
            return self._digest.files
        return (self.path,) if self.weights_path is None else (self.path, self.weights_path)

    def layer(self, name: str) -> Layer:
        """Return the layer of that name.

        Args:
            name: A layer's name.

        Raises:
            ModelError: The model has no such layer.
        """
        try:
            return self._layers_by_name[name]
        except KeyError as error:
            known = ", ".join(repr(layer.name) for layer in self.layers[:10])
            raise ModelError(
                f"The model '{self.path}' has no layer {name!r}.",
                remedy=f"Its first layers are: {known}." if known else "It has no layers at all.",
            ) from error

    def weight(self, initializer_name: str) -> npt.NDArray[np.float32]:
        """Return the numbers of an initializer, read-only and in the shape in which they are stored.

        They are float32 for every weight and bias of a layer that is not blocked, whence the type; any other
        initializer comes in the type that it has.

        Args:
            initializer_name: For example `layer.weight` or `layer.bias`.

        Raises:
            ModelError: The graph has no such initializer.
        """
        value = self.ir.graph.initializers.get(initializer_name)
        if value is None or value.const_value is None:
            raise ModelError(
                f"The model '{self.path}' has no initializer {initializer_name!r}.",
                remedy="Use the weight or the bias of one of its layers.",
            )
        array: npt.NDArray[np.float32] = value.const_value.numpy().view()
        array.flags.writeable = False
        return array

    def clone(self) -> ir.Model:
        """Return an independent copy of the graph to edit; the immutable weight tensors are shared."""
        return clone_ir(self.ir)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the normalised graph to a file; see `save_ir`.

        Args:
            path: The file to write; missing folders are created.

        Raises:
            FileError: The file cannot be written; nothing is left behind.
        """
        save_ir(self.ir, path)


def load_model(
    path: str | os.PathLike[str],
    *,
    fold_batch_norm: bool = True,
    skip_fusion_layers: Collection[str] = (),
) -> Model:
    """Load an ONNX model and normalise it, so that no other room needs to know what exporters do.

    Weights in external data files stay there, memory-mapped, until they are used.

    Args:
        path: An ONNX file.
        fold_batch_norm: Whether BatchNormalization is folded into the layer before it.
        skip_fusion_layers: Names of the layers that keep their BatchNormalization.

    Returns:
        The model.

    Raises:
        FileError: The file, or a data file it refers to, is missing or cannot be read.
        ModelError: It is no valid model, refers to data outside its folder, or cannot be raised to opset 13.
        ParameterError: `skip_fusion_layers` names a layer that the model does not have.

    Example:
        >>> import tempfile
        >>> text = 'g (float[1] x) => (float[1] y) {y = Relu(x)}'
        >>> graph = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 13]>' + text)
        >>> file = Path(tempfile.mkdtemp()) / "relu.onnx"
        >>> size_bytes = save_ir(graph, file)
        >>> load_model(file).layers
        ()
    """
    if isinstance(skip_fusion_layers, str):
        raise ParameterError(
            "The 'skip_fusion_layers' parameter of load_model must be a list of names. "
            f"Got the string {skip_fusion_layers!r} instead."
        )
    file = read_model_file(path)
    graph = _deserialise(file)
    try:
        graph = _normalise(graph)
    except AmctError:
        raise
    except Exception as error:  # an attribute of a wrong type, say: what onnx_ir finds only when it is used
        raise ModelError(f"'{file.path}' is no valid ONNX model: {error}.", remedy=_INVALID) from error
    names = {str(node.name) for node in graph.graph}
    for name in skip_fusion_layers:
        if name not in names:
            raise ParameterError(
                "The 'skip_fusion_layers' parameter of load_model must name operators of the model. "
                f"Got {name!r}, which '{file.path}' does not have."
            )
    if fold_batch_norm:
        fold_batch_norms(graph, frozenset(skip_fusion_layers))
        fold_batch_norms_forward(graph, frozenset(skip_fusion_layers))
        remove_unused(graph)
    unfused = skip_fusion_layers if fold_batch_norm else names
    return Model(graph, file.path, file.digest, file.digest.size_bytes, unfused_layers=unfused)


def save_with_unique_names(path: str | os.PathLike[str], copy: str | os.PathLike[str]) -> None:
    """Save a model as it is, but for the names of its operators: those by which `load_model` knows them.

    An operator without a name becomes `{op_type}_{index}`, and one whose name is taken gets a number behind it.

    Args:
        path: An ONNX file.
        copy: Where to write.

    Raises:
        FileError: A file cannot be read or written.
        ModelError: It is no valid model.
    """
    save_ir(_deserialise(read_model_file(path)), copy)


def _deserialise(file: ModelFile) -> ir.Model:
    name_nodes(file.proto.graph)
    try:
        model = ir.from_proto(file.proto)
        put_back_weights(model.graph, file.weights)
        # Absolute, since onnx_ir checks no path where the folder is empty.
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            ir.external_data.set_base_dir(graph, file.path.parent)
        # A file may list operators in any order, as onnxruntime takes it; the passes and clones need theirs.
        model.graph.sort()
    except Exception as error:  # onnx_ir raises many kinds on graphs that are not valid
        raise ModelError(f"'{file.path}' is no valid ONNX model: {error}.", remedy=_INVALID) from error
    return model


def _normalise(model: ir.Model) -> ir.Model:
    """Run the passes in the order in which their preconditions hold."""
    drop_initializer_inputs(model)
    model = raise_opset(model)
    lift_constants(model)
    infer_shapes(model)
    fold_constants(model)
    fold_pads(model)
    remove_unused(model)
    fold_gemm_scaling(model)
    return model
