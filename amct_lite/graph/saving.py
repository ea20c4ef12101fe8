"""A graph becomes a file: deterministic, whole or absent, its weights beside it where they are too big."""

import os
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.files.atomic import replacing, write_bytes_atomically
from amct_lite.graph.cloning import clone_self_contained
from amct_lite.graph.constants import all_graphs
from amct_lite.graph.serializing import to_bytes

__all__ = ["DEFAULT_EXTERNAL_THRESHOLD_BYTES", "save_ir", "stored_bytes"]

# A protobuf can hold 2 GiB (2.147e9 bytes); the rest is room for the graph itself.
DEFAULT_EXTERNAL_THRESHOLD_BYTES = 1_800_000_000
# Smaller tensors (shapes, scales) stay in the model file, where tools without the data file can read them.
_SMALLEST_EXTERNAL_BYTES = 1024
# A multiple of every element size, and of the cache line.
_ALIGNMENT_BYTES = 64


def save_ir(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_threshold_bytes: int = DEFAULT_EXTERNAL_THRESHOLD_BYTES,
) -> int:
    """Write a model to a file; the same model gives the same bytes.

    Where the weights exceed the threshold they go to `{stem}.data` beside it. Each of the two files appears
    whole or not at all, the data file first.

    Args:
        model: The model; it is not changed.
        path: The file to write, for example "out/model.onnx"; missing folders are created.
        external_threshold_bytes: Up to this size of all weights the model is one file.

    Returns:
        How many bytes were written, those beside the file included.

    Raises:
        FileError: The file cannot be written; nothing is left behind.
        ModelError: The model cannot be serialised.
    """
    # A link is followed here, so that the data file lies beside the file and not beside the link.
    target = Path(os.path.realpath(path))
    copy = clone_self_contained(model)
    if stored_bytes(copy) <= external_threshold_bytes:
        data = to_bytes(copy)
        write_bytes_atomically(target, data)
        return len(data)
    data_path = target.with_name(f"{target.stem}.data")
    if data_path == target:
        raise ModelError(
            f"The model file '{target}' would have the name of its own data file.",
            remedy="Save it under a name that ends in .onnx.",
        )
    # The inner file moves into place first: a model without its data is worse than data without its model.
    with replacing(target) as temporary, replacing(data_path) as temporary_data:
        with temporary_data.open("wb") as file:
            _move_out(copy, data_path.name, file)
        data = to_bytes(copy)
        temporary.write_bytes(data)
        return len(data) + temporary_data.stat().st_size


def stored_bytes(model: ir.Model) -> int:
    """Return the size of all initializers and tensor attributes of a model, external ones included."""
    total = 0
    for graph in all_graphs(model.graph):
        total += sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    total += attribute.as_tensor().nbytes
    return int(total)


def _move_out(model: ir.Model, location: str, file: BinaryIO) -> None:
    """Write the big initializers to an open file, and let the model refer to them there."""
    offset = 0
    for graph in all_graphs(model.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < _SMALLEST_EXTERNAL_BYTES:
                continue
            padding = -offset % _ALIGNMENT_BYTES
            file.write(b"\0" * padding)
            offset += padding
            data = tensor.tobytes()
            file.write(data)
            value.const_value = ir.ExternalTensor(
                location,
                offset,
                len(data),
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=str(value.name),
            )
            offset += len(data)
