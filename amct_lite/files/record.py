"""The scale/offset record on disk: AMCT's protobuf text, read with its checks and written whole.

Codebooks, fitted weights and biases do not fit into it: they stand beside it in `{record}.weights.npz`, which knows
which record it belongs to. Why ranges were chosen stands beside it too, in `{record}.ranges.json`.
"""

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from amct_lite.errors import RecordError
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.json_document import read_text
from amct_lite.files.layer_record import LayerRecord
from amct_lite.files.protos import message_class
from amct_lite.files.range_file import RangeChoice, range_file, read_ranges, write_ranges
from amct_lite.files.record_checks import check_entry
from amct_lite.files.record_message import from_entry, to_entry
from amct_lite.files.weights_file import read_weights, write_weights

__all__ = ["LayerRecord", "Records", "range_choices", "read_record", "weights_file", "write_record"]

_SCHEMA = ("scale_offset_record", "amct_lite.ScaleOffsetRecord")
_UNKNOWN_FIELD = re.compile(r'Message type "[\w.]*?(\w+)" has no field named "(\w+)"')


class Records(dict[str, LayerRecord]):
    """The layers of a record file, by name, and what it says beside them.

    Attributes:
        beside_layers: AMCT's prune_record, serialized; `write_record` writes it again.
    """

    beside_layers: bytes = b""


def range_choices(records: Mapping[str, LayerRecord]) -> dict[str, RangeChoice]:
    """Layer name -> how "auto" chose its range, for the layers that have one."""
    return {name: record.range_choice for name, record in records.items() if record.range_choice is not None}


def weights_file(record_file: Path) -> Path:
    """Where the codebooks, fitted weights and biases of a record are."""
    return record_file.with_name(f"{record_file.name}.weights.npz")


def write_record(records: Mapping[str, LayerRecord], path: Path) -> None:
    """Write a record file, layers in the mapping's order, and beside it the calibrated weights, if any."""
    root = message_class(*_SCHEMA)()
    if isinstance(records, Records):
        root.MergeFromString(records.beside_layers)
    for name, record in records.items():
        to_entry(root.record.add(), name, record)
    text = text_format.MessageToString(root)
    weights = {name: record.calibrated_weight for name, record in records.items()}
    weights = {name: weight for name, weight in weights.items() if not weight.is_empty}
    if weights:
        # Before the record: a process that dies in between leaves weights that the old record does not know.
        write_weights(weights_file(path), weights, {"record": _digest(text)})
    write_text_atomically(path, text)
    choices = range_choices(records)
    if choices:
        write_ranges(range_file(path), choices, _digest(text))
    else:
        range_file(path).unlink(missing_ok=True)
    if not weights:
        weights_file(path).unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_record(path: Path) -> Records:
    """Read and check a record file.

    Args:
        path: The file; where a key comes twice the last one counts, as in AMCT.

    Raises:
        FileError: It cannot be read.
        RecordError: It is not a record, is empty, or a value is out of its range.
    """
    text = read_text(path, "record file")
    root = _parse(text, path)
    if not root.record:
        raise RecordError(
            f"record_file is empty, no layers to be quantized: {path} has no entry.",
            remedy="Calibrate first: run at least batch_num batches.",
        )
    records = Records()
    for entry in root.record:
        check_entry(entry, f"The record file {path}")
        records[entry.key] = from_entry(entry)
    for name, choice in read_ranges(range_file(path), _digest(text)).items():
        if name in records:
            records[name] = dataclasses.replace(records[name], range_choice=choice)
    beside = [entry.key for entry in root.record if entry.value.calibrated_weight]
    records.update(_with_weights(path, _digest(text), {name: records[name] for name in beside}))
    root.ClearField("record")
    records.beside_layers = root.SerializePartialToString(deterministic=True)
    return records


def _parse(text: str, path: Path) -> Any:
    root = message_class(*_SCHEMA)()
    try:
        text_format.Parse(text, root)
    except (text_format.ParseError, RecursionError) as error:
        unknown = _UNKNOWN_FIELD.search(str(error))
        if unknown is None or not isinstance(error, text_format.ParseError):
            cause, remedy = str(error), "Calibrate again."
        else:
            message, field = unknown.groups()
            cause = f"line {error.GetLine()}: the field {field!r} of {message} is not known{_nearest(message, field)}"
            remedy = "Correct the name, or delete the field where the layer means the same without it."
        raise RecordError(f"The record file {path} is not a scale/offset record: {cause}.", remedy=remedy) from error
    missing = root.FindInitializationErrors()
    if missing:
        raise RecordError(
            f"The record file {path} is not a scale/offset record: {missing[0]} is missing.",
            remedy="Correct the file, or let AMCT write it again.",
        )
    return root


def _nearest(message: str, field: str) -> str:
    nested = "ScaleOffsetRecord." if message == "MapFiledEntry" else ""
    known = message_class(_SCHEMA[0], f"amct_lite.{nested}{message}").DESCRIPTOR.fields_by_name
    near = difflib.get_close_matches(field, list(known), n=1)
    return f"; {near[0]!r} is" if near else ""


def _with_weights(path: Path, digest: str, records: Mapping[str, LayerRecord]) -> dict[str, LayerRecord]:
    """Records whose weights are in the file beside theirs, with them."""
    if not records:
        return {}
    if not weights_file(path).exists():
        raise RecordError(
            f"There is no file {weights_file(path).name} beside the record, which holds this layer's weights.",
            layer=next(iter(records)),
            remedy="Put the two files together again, or calibrate again.",
        )
    weights = read_weights(weights_file(path), {"record": digest})
    found = {}
    for name, record in records.items():
        if name not in weights:
            raise RecordError(
                f"The record file {path} has its weights in {weights_file(path).name}, where this layer is missing.",
                layer=name,
                remedy="Put the two files together again, or calibrate again.",
            )
        layer = weights[name]
        found[name] = dataclasses.replace(record, codebook=layer.codebook, weight=layer.weight, bias=layer.bias)
    return found
