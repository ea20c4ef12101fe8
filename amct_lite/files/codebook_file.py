"""Codebooks in a file of their own, for runtimes that decode them themselves.

An .npz holds for layer number i the arrays `i.levels` (in the type that the levels are stored in), `i.codes` (packed,
as `amct_lite.codebook.packing` says), `i.scales`, and `i.bias` where there is one; `head` is JSON text in UTF-8 with
the layers' names and shapes in that order. The same codebooks give the same bytes.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.codebook import Codebook, LevelType
from amct_lite.codebook.packing import pack_codes, unpack_codes
from amct_lite.errors import FileError, RecordError
from amct_lite.files.atomic import write_bytes_atomically
from amct_lite.files.npz import npz_bytes

__all__ = ["CodebookAndBias", "codebooks_json", "read_codebooks", "write_codebooks"]

CodebookAndBias = tuple[Codebook, npt.NDArray[np.float32] | None]
"""A layer's codebook, and its float32 bias, shape (out_channels,), where it has one."""

_FORMAT = 1


def write_codebooks(path: Path, codebooks: Mapping[str, CodebookAndBias], keys: Mapping[str, str]) -> None:
    """Write codebooks to a file.

    Args:
        path: An .npz file.
        codebooks: Layer name -> codebook and bias.
        keys: What they belong to (the model's digest, say); asked for again on reading.

    Raises:
        FileError: The file cannot be written; nothing is left behind.
    """
    head = {"format": _FORMAT, "keys": dict(keys), "layers": [_shape(name, *pair) for name, pair in codebooks.items()]}
    arrays = {"head": np.frombuffer(json.dumps(head, sort_keys=True).encode(), np.uint8)}
    for index, pair in enumerate(codebooks.values()):
        arrays.update({f"{index}.{part}": array for part, array in _parts(*pair).items()})
    write_bytes_atomically(path, npz_bytes(arrays))


def read_codebooks(path: Path, keys: Mapping[str, str]) -> dict[str, CodebookAndBias]:
    """Read codebooks, refusing those that belong to something else.

    Args:
        path: A file of `write_codebooks`.
        keys: What they have to belong to; keys of the file that are not named here do not matter.

    Returns:
        Layer name -> codebook and bias, in the order in which they were written.

    Raises:
        FileError: The file cannot be read or holds no codebooks.
        RecordError: It belongs to something else; the message names what differs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays["head"].tobytes())
        _check_keys(path, {"format": str(head["format"]), **head["keys"]}, {"format": str(_FORMAT), **keys})
        return {
            shape["name"]: _from_parts(shape, {part: arrays.get(f"{index}.{part}") for part in _PART_NAMES})
            for index, shape in enumerate(head["layers"])
        }
    except RecordError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and json raise many kinds on damaged files
        raise FileError(
            f"The codebook file {path} cannot be read: {error}.", remedy="Check the path, or write the file again."
        ) from error


def codebooks_json(codebooks: Mapping[str, CodebookAndBias]) -> str:
    """Codebooks as JSON text: shapes, levels and scales as numbers, packed codes in base64.

    Args:
        codebooks: Layer name -> codebook and bias.

    Example:
        >>> book = Codebook(
        ...     tables=np.array([[[-1.0], [2.0]]], np.float32),
        ...     codes=np.array([[0, 1, 1]], np.uint8),
        ...     scales=np.array([0.5], np.float32),
        ...     num_columns=3,
        ...     rows_per_table=1,
        ... )
        >>> document = json.loads(codebooks_json({"fc": (book, None)}))
        >>> document["layers"][0]["levels"], document["layers"][0]["codes"]
        ([-1.0, 2.0], 'Bg==')
    """
    layers = []
    for name, pair in codebooks.items():
        parts = _parts(*pair)
        codes = base64.b64encode(parts.pop("codes").tobytes()).decode("ascii")
        numbers = {part: array.reshape(-1).tolist() for part, array in parts.items()}
        layers.append({**_shape(name, *pair), **numbers, "codes": codes})
    return json.dumps({"format": _FORMAT, "layers": layers}, sort_keys=True)


_PART_NAMES = ("levels", "codes", "scales", "bias")


def _parts(codebook: Codebook, bias: npt.NDArray[np.float32] | None) -> dict[str, npt.NDArray[Any]]:
    parts = {
        "levels": codebook.tables.astype(codebook.level_type.value),
        "codes": pack_codes(codebook.codes, codebook.code_bits),
        "scales": codebook.scales.astype(codebook.scale_dtype),
    }
    return parts if bias is None else {**parts, "bias": bias}


def _shape(name: str, codebook: Codebook, bias: npt.NDArray[np.float32] | None) -> dict[str, Any]:
    """What the arrays of a layer do not say; tables, levels and vectors are the axes of the levels."""
    return {
        "name": name,
        "rows": codebook.codes.shape[0],
        "num_columns": codebook.num_columns,
        "num_tables": codebook.tables.shape[0],
        "num_levels": codebook.num_levels,
        "vector_size": codebook.vector_size,
        "rows_per_table": codebook.rows_per_table,
        "level_type": str(codebook.level_type),
        "code_bits": codebook.code_bits,
        "has_bias": bias is not None,
    }


def _from_parts(shape: Mapping[str, Any], parts: Mapping[str, npt.NDArray[Any] | None]) -> CodebookAndBias:
    levels, codes, scales, bias = (parts[part] for part in _PART_NAMES)
    if levels is None or codes is None or scales is None or (bias is None) == shape["has_bias"]:
        raise ValueError(f"arrays of layer {shape['name']!r} are missing")
    rows, vectors = shape["rows"], -(-shape["num_columns"] // shape["vector_size"])
    codebook = Codebook(
        tables=levels.astype(np.float32).reshape(shape["num_tables"], shape["num_levels"], shape["vector_size"]),
        codes=unpack_codes(codes, shape["code_bits"], rows * vectors).reshape(rows, vectors),
        scales=scales.astype(np.float32),
        num_columns=shape["num_columns"],
        rows_per_table=shape["rows_per_table"],
        level_type=LevelType(shape["level_type"]),
    )
    return codebook, bias


def _check_keys(path: Path, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        if stored.get(name) != value:
            raise RecordError(
                f"The codebook file {path} was made for another {name}.",
                remedy="Write it again, or use the file that belongs to this one.",
            )
