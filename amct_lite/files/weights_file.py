"""What calibration makes of weights and does not fit into a record: codebooks, fitted weights, biases.

An .npz holds for layer number i its codebook as the arrays `i.levels` (in the type that the levels are stored in),
`i.codes` (packed, as `amct_lite.codebook.packing` says) and `i.scales` (times 2**scale_exponent; the byte n stands for
(n / 256)**4), or its fitted float weight as `i.weight`, and `i.bias` where there is one; `head` is JSON text in UTF-8
with the layers' names and shapes in that order. A code of v weights stands for those of v rows at the same column: with
p rows of codes, component i of row r is row i * p + r of the weight. The same weights give the same bytes. Runtimes
that decode codebooks themselves find all they need here.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.packing import pack_codes, unpack_codes
from amct_lite.codebook.scale_format import ScaleFormat
from amct_lite.errors import FileError, RecordError
from amct_lite.files.atomic import write_bytes_atomically
from amct_lite.files.npz import json_array, json_of, npz_arrays, npz_bytes

__all__ = ["CalibratedWeight", "codebooks_json", "read_weights", "write_weights"]

# Format 2 has no scales of uint8; up to format 3 a code of several weights stood for neighbouring columns.
_FORMAT, _READABLE, _VECTORS_OF_ROWS = 4, (2, 3, 4), 4


@dataclass(frozen=True)
class CalibratedWeight:
    """What calibration made of one layer's weight and bias; None for what it left alone.

    Attributes:
        codebook: The codebook that the weight becomes.
        weight: float32 array of the stored weight's shape, which takes the weight's place before it is quantized, or
            for good where it stays float. A layer has a codebook or a fitted weight, not both.
        bias: float32 array, shape (out_channels,), which takes the bias's place.
    """

    codebook: Codebook | None = None
    weight: npt.NDArray[np.float32] | None = None
    bias: npt.NDArray[np.float32] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether calibration left weight and bias alone."""
        return self.codebook is None and self.weight is None and self.bias is None


def write_weights(path: Path, weights: Mapping[str, CalibratedWeight], keys: Mapping[str, str]) -> None:
    """Write calibrated weights to a file.

    Args:
        path: An .npz file.
        weights: Layer name -> codebook or fitted weight, and bias.
        keys: What they belong to (the model's digest, say); asked for again on reading.

    Raises:
        FileError: The file cannot be written; nothing is left behind.
    """
    head = {"format": _FORMAT, "keys": dict(keys), "layers": [_head(name, layer) for name, layer in weights.items()]}
    arrays: dict[str, npt.NDArray[Any]] = {"head": json_array(head)}
    for index, layer in enumerate(weights.values()):
        arrays.update({f"{index}.{part}": array for part, array in _parts(layer).items()})
    write_bytes_atomically(path, npz_bytes(arrays))


def read_weights(path: Path, keys: Mapping[str, str]) -> dict[str, CalibratedWeight]:
    """Read calibrated weights, refusing those that belong to something else.

    Args:
        path: A file of `write_weights`.
        keys: What they have to belong to; keys of the file that are not named here do not matter.

    Returns:
        Layer name -> codebook or fitted weight, and bias, in the order in which they were written.

    Raises:
        FileError: The file cannot be read or holds no weights.
        RecordError: It belongs to something else; the message names what differs.
    """
    try:
        arrays = npz_arrays(path)
        head = json_of(arrays["head"])
        known = _FORMAT if head["format"] in _READABLE else head["format"]
        _check_keys(path, {"format": str(known), **head["keys"]}, {"format": str(_FORMAT), **keys})
        return {
            layer["name"]: _from_parts(
                head["format"], layer, {part: arrays.get(f"{index}.{part}") for part in _PART_NAMES}
            )
            for index, layer in enumerate(head["layers"])
        }
    except RecordError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and json raise many kinds on damaged files
        raise FileError(
            f"The weights file {path} cannot be read: {error}.", remedy="Check the path, or write the file again."
        ) from error


def codebooks_json(weights: Mapping[str, CalibratedWeight]) -> str:
    """The codebooks among weights as JSON text: shapes, levels, scales, biases as numbers, packed codes in base64.

    Args:
        weights: Layer name -> codebook and bias; layers without a codebook are left out.

    Example:
        >>> book = Codebook(
        ...     tables=np.array([[[-1.0], [2.0]]], np.float32),
        ...     codes=np.array([[0, 1, 1]], np.uint8),
        ...     scales=np.array([0.5], np.float32),
        ...     num_rows=1,
        ...     rows_per_table=1,
        ... )
        >>> document = json.loads(codebooks_json({"fc": CalibratedWeight(book)}))
        >>> document["layers"][0]["levels"], document["layers"][0]["codes"]
        ([-1.0, 2.0], 'Bg==')
    """
    layers = []
    for name, layer in weights.items():
        if layer.codebook is None:
            continue
        parts = _parts(layer)
        codes = base64.b64encode(parts.pop("codes").tobytes()).decode("ascii")
        numbers = {part: array.reshape(-1).tolist() for part, array in parts.items()}
        numbers["scales"] = layer.codebook.scales.tolist()
        head = {key: value for key, value in _head(name, layer).items() if key != "scale_exponent"}
        layers.append({**head, **numbers, "codes": codes})
    return json.dumps({"format": _FORMAT, "layers": layers}, sort_keys=True)


_PART_NAMES = ("levels", "codes", "scales", "weight", "bias")


def _parts(layer: CalibratedWeight) -> dict[str, npt.NDArray[Any]]:
    book = layer.codebook
    found: dict[str, npt.NDArray[Any] | None] = {"weight": layer.weight, "bias": layer.bias}
    if book is not None:
        found |= {
            "levels": book.tables.astype(book.level_type.value),
            "codes": pack_codes(book.codes, book.code_bits),
            "scales": book.scale_format.stored(book.scales),
        }
    return {part: array for part, array in found.items() if array is not None}


def _head(name: str, layer: CalibratedWeight) -> dict[str, Any]:
    """Which arrays a layer has, and what they do not say; tables, levels and vectors are the axes of the levels."""
    book = layer.codebook
    shape = (
        {}
        if book is None
        else {
            "rows": book.num_rows,
            "num_columns": book.num_columns,
            "num_tables": book.tables.shape[0],
            "num_levels": book.num_levels,
            "vector_size": book.vector_size,
            "rows_per_table": book.rows_per_table,
            "level_type": str(book.level_type),
            "code_bits": book.code_bits,
            "scale_exponent": book.scale_format.exponent,
        }
    )
    return {"name": name, "parts": sorted(_parts(layer)), **shape}


def _from_parts(number: int, head: Mapping[str, Any], parts: Mapping[str, npt.NDArray[Any] | None]) -> CalibratedWeight:
    if sorted(part for part, array in parts.items() if array is not None) != head["parts"]:
        raise ValueError(f"arrays of layer {head['name']!r} are missing")
    levels, codes, scales, weight, bias = (parts[part] for part in _PART_NAMES)
    if levels is None or codes is None or scales is None:
        return CalibratedWeight(weight=weight, bias=bias)
    if head["vector_size"] > 1 and number < _VECTORS_OF_ROWS:
        raise ValueError(f"the vectors of layer {head['name']!r} are of an older form")
    shape = -(-head["rows"] // head["vector_size"]), head["num_columns"]
    codebook = Codebook(
        tables=levels.astype(np.float32).reshape(head["num_tables"], head["num_levels"], head["vector_size"]),
        codes=unpack_codes(codes, head["code_bits"], math.prod(shape)).reshape(shape),
        scales=ScaleFormat(scales.dtype, head["scale_exponent"]).loaded(scales).astype(np.float32),
        num_rows=head["rows"],
        rows_per_table=head["rows_per_table"],
        level_type=LevelType(head["level_type"]),
    )
    return CalibratedWeight(codebook, weight, bias)


def _check_keys(path: Path, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        if stored.get(name) != value:
            raise RecordError(
                f"The weights file {path} was made for another {name}.",
                remedy="Write it again, or use the file that belongs to this one.",
            )
