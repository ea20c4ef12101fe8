"""From a file on disk to a parsed and checked ModelProto and its weights."""

import dataclasses
import mmap
import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from amct_lite.errors import FileError, ModelError
from amct_lite.files.reading import mapped_bytes
from amct_lite.graph.digest import FileDigest
from amct_lite.graph.external import check_tensors
from amct_lite.graph.raw_weights import parse_model

__all__ = ["ModelFile", "read_model_file"]

_NOT_ONNX = "Pass a complete .onnx file; if it was downloaded or copied, do that again and compare the sizes."


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A parsed model file.

    Attributes:
        path: Where it was read from, as an absolute path.
        proto: Its contents without its big weights; external data is still outside.
        weights: The weights that are not in `proto`, by name.
        digest: Of the model file followed by each external data file in order of first use.
    """

    path: Path
    proto: onnx.ModelProto
    weights: dict[str, ir.TensorProtocol]
    digest: FileDigest


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Read, parse and check a model file.

    Args:
        path: An ONNX file.

    Returns:
        The parsed model.

    Raises:
        FileError: The file, or a data file it refers to, is missing or cannot be read.
        ModelError: It is no complete ONNX model, or refers to data outside its folder.
    """
    absolute = Path(path).absolute()
    with mapped_bytes(absolute, "an .onnx file") as content:
        proto, weights = _parse(content, absolute)
    _check_tensor_names(proto.graph, absolute)
    try:
        digest = FileDigest([absolute, *check_tensors(proto, absolute.parent)])
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"The external data of '{absolute}' cannot be read: {error}.",
            remedy="Check that the data files are there and that you may read them.",
        ) from error
    return ModelFile(absolute, proto, weights, digest)


def _parse(content: bytes | mmap.mmap, path: Path) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    try:
        proto, weights = parse_model(content)
    except DecodeError as error:
        raise ModelError(f"'{path}' is no complete ONNX model: {error}.", remedy=_NOT_ONNX) from error
    # Protobuf accepts many byte strings that are no model, an empty file among them.
    if proto.ir_version < 1 or not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"'{path}' is no complete ONNX model: it has no graph with outputs.", remedy=_NOT_ONNX)
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise ModelError(
            f"'{path}' has the sparse initializer {name!r}, which is not supported.",
            remedy="Export the model with dense weights.",
        )
    return proto, weights


def _check_tensor_names(graph: onnx.GraphProto, path: Path) -> None:
    """Check that each tensor of the main graph is defined exactly once."""
    remedy = "Export the model again, or check it with onnx.checker to see where it went wrong."
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"'{path}' defines the initializer {twice!r} more than once.", remedy=remedy)
    known = {value.name for value in graph.input} | set(names)
    for node in graph.node:
        for name in filter(None, node.output):
            if name in known:
                raise ModelError(f"'{path}' defines the tensor {name!r} more than once.", remedy=remedy)
            known.add(name)
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in known:
                raise ModelError(
                    f"Operator {node.name or node.op_type!r} of '{path}' reads the tensor {name!r}, "
                    "which nothing defines.",
                    remedy=remedy,
                )
    for output in graph.output:
        if output.name not in known:
            raise ModelError(f"Output {output.name!r} of '{path}' is defined by no operator.", remedy=remedy)
