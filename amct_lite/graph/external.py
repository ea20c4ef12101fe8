"""External data: which files a model refers to, and whether they are there, whole and in its folder."""

import os
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path

import onnx
import onnx_ir as ir

from amct_lite.errors import FileError, ModelError
from amct_lite.graph.raw_weights import wrong_length

__all__ = ["check_tensors", "stored_tensors"]


def stored_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor stored in a model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def check_tensors(model: onnx.ModelProto, folder: Path) -> tuple[Path, ...]:
    """Check that all stored tensors can be read, before anything tries.

    Args:
        model: The parsed model.
        folder: The folder of the model file, absolute; external data must lie inside it.

    Returns:
        The external data files, each once, in the order in which the model first refers to them.

    Raises:
        ModelError: A tensor's data is too short, or its path leaves the folder.
        FileError: An external data file is missing.
    """
    files: dict[str, Path] = {}
    for tensor in stored_tensors(model):
        size = _size_bytes(tensor)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            location = entries.get("location", "")
            if location not in files:
                files[location] = _resolve(tensor.name, location, folder)
            _check_length(tensor.name, entries, size, files[location])
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != size:
            raise wrong_length(tensor.name, len(tensor.raw_data), size)
        elif not tensor.HasField("raw_data"):
            _check_count(tensor)
    return tuple(dict.fromkeys(files.values()))


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _size_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's type and shape need; 0 for strings, whose size the type does not tell."""
    try:
        dtype = ir.DataType(tensor.data_type)
        bits = 0 if dtype == ir.DataType.STRING else dtype.bitwidth
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"Tensor {tensor.name!r} has the unknown element type {tensor.data_type}.",
            remedy="The file is damaged or newer than the installed onnx_ir: export again or update onnx_ir.",
        ) from error
    return -(-_num_elements(tensor) * bits // 8)


def _num_elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise ModelError(
                f"Tensor {tensor.name!r} has the negative dimension {dim}.",
                remedy="The file is damaged: copy or export the model again.",
            )
        count *= dim
    return count


def _check_count(tensor: onnx.TensorProto) -> None:
    """Check the length of a typed field, where one number of it is one element."""
    fields: dict[int, Sized] = {
        onnx.TensorProto.FLOAT: tensor.float_data,
        onnx.TensorProto.DOUBLE: tensor.double_data,
        onnx.TensorProto.INT32: tensor.int32_data,
        onnx.TensorProto.INT64: tensor.int64_data,
        onnx.TensorProto.STRING: tensor.string_data,
    }
    field = fields.get(tensor.data_type)
    if field is not None and len(field) != _num_elements(tensor):
        count = _num_elements(tensor)
        raise ModelError(
            f"Tensor {tensor.name!r} holds {len(field)} numbers, but its shape needs {count}.",
            remedy="The file is damaged: copy or export the model again.",
        )


def _resolve(name: str, location: str, folder: Path) -> Path:
    """Return the real path of an external data file, refusing whatever is not a plain file in the folder."""
    inside = "Put the data file into the model's folder and refer to it by its name."
    where = f"The external data of tensor {name!r} is at {location!r}"
    # Windows separators count everywhere: the file may have been made for another machine.
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or ":" in parts[0] or parts[0] == "" or ".." in parts:
        raise ModelError(f"{where}, which is not a path inside the model's folder '{folder}'.", remedy=inside)
    path = folder / location
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise ModelError(
            f"{where}, a link that leads out of the model's folder to '{real}'.",
            remedy="Replace the link by a copy of the file.",
        )
    if not real.is_file():
        raise FileError(f"{where}, but there is no file '{path}'.", remedy="Copy it from where the model came from.")
    if real.stat().st_nlink > 1:
        # onnx_ir refuses to map such a file: a hard link can stand for a file of another folder.
        raise ModelError(f"{where}, a file with more than one hard link.", remedy="Replace it by a copy of the file.")
    return path


def _check_length(name: str, entries: dict[str, str], size: int, path: Path) -> None:
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size)
    except ValueError as error:
        raise ModelError(
            f"The external data of tensor {name!r} has an offset or length that is no number.",
            remedy="The file is damaged: copy or export the model again.",
        ) from error
    available = path.stat().st_size
    if offset < 0 or length < size or offset + length > available:
        raise ModelError(
            f"The external data of tensor {name!r} needs {size} bytes at offset {offset} of '{path}' "
            f"(it declares {length}), which has {available} bytes.",
            remedy="The data file is truncated or belongs to another model: copy or export both again.",
        )
