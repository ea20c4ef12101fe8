"""The scale/offset record on disk: AMCT's protobuf text, read with its checks and written whole."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from amct_lite.errors import RecordError
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.json_document import read_text
from amct_lite.files.protos import message_class

__all__ = ["LayerRecord", "read_record", "write_record"]

# AMCT refuses scales outside (DBL_EPSILON, 1 / DBL_EPSILON).
_SMALLEST_SCALE = 2.220446049250313e-16
_INT8 = range(-128, 128)


@dataclass(frozen=True)
class LayerRecord:
    """The quantization factors of one layer.

    Attributes:
        scale_d: Step of the activation grid (a float32 value); None where the activation stays float.
        offset_d: Level that stands for 0.
        scale_w: One weight scale per output channel, or one for the tensor; () for a layer without weights.
        offset_w: As many zeros.
        shift_bit: As many shifts, for old chips; () where not used.
        cluster: The int8 levels that NUQ keeps for the weights, ascending; () without NUQ.
        activation_cluster: The int8 levels that NUQ keeps for the activations, ascending; () without NUQ.
        input_shape: (channels, height, width) of the layer's input, () where unknown.
        skip_fusion: True where nothing was folded into the layer.
    """

    scale_d: float | None = None
    offset_d: int = 0
    scale_w: tuple[float, ...] = ()
    offset_w: tuple[int, ...] = ()
    shift_bit: tuple[int, ...] = ()
    cluster: tuple[int, ...] = ()
    activation_cluster: tuple[int, ...] = ()
    input_shape: tuple[int, ...] = ()
    skip_fusion: bool = False


def write_record(records: Mapping[str, LayerRecord], path: Path) -> None:
    """Write a record file, layers in the mapping's order."""
    root = message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")()
    for name, record in records.items():
        entry = root.record.add(key=name)
        _fill(entry.value, record)
    write_text_atomically(path, text_format.MessageToString(root))


def read_record(path: Path) -> dict[str, LayerRecord]:
    """Read and check a record file.

    Args:
        path: The file; where a key comes twice the last one counts, as in AMCT.

    Raises:
        FileError: It cannot be read.
        RecordError: It is not a record, is empty, or a value is out of its range.
    """
    root = message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")()
    text = read_text(path, "record file")
    try:
        text_format.Parse(text, root)
    except (text_format.ParseError, RecursionError) as error:
        raise RecordError(
            f"The record file {path} is not a scale/offset record: {error}.", remedy="Calibrate again."
        ) from error
    if not root.record:
        raise RecordError(
            f"The record_file {path} is empty, no layers to be quantized.",
            remedy="Calibrate first: run at least batch_num batches.",
        )
    return {entry.key: _checked(entry.key, entry.value) for entry in root.record}


def _fill(message: Any, record: LayerRecord) -> None:
    if record.scale_d is not None:
        message.scale_d = record.scale_d
        message.offset_d = record.offset_d
    message.scale_w.extend(record.scale_w)
    message.offset_w.extend(record.offset_w)
    message.shift_bit.extend(record.shift_bit)
    message.cluster.extend(record.cluster)
    message.activation_cluster.extend(record.activation_cluster)
    for field, size in zip(("channels", "height", "width"), record.input_shape, strict=False):
        setattr(message, field, size)
    if record.skip_fusion:
        message.skip_fusion = True


def _checked(layer: str, message: Any) -> LayerRecord:
    scales = [*message.scale_w, *([message.scale_d] if message.HasField("scale_d") else [])]
    for scale in scales:
        if not (math.isfinite(scale) and _SMALLEST_SCALE < scale < 1 / _SMALLEST_SCALE):
            raise RecordError(
                f"A scale of {scale!r} is not within (2.2e-16, 4.5e15).",
                layer=layer,
                remedy="Calibrate again, or add the layer to skip_layers.",
            )
    if message.offset_d not in _INT8:
        raise RecordError(f"offset_d must be in [-128, 127], but is {message.offset_d}.", layer=layer)
    if any(message.offset_w) or len(message.offset_w) not in (0, len(message.scale_w)):
        raise RecordError("offset_w must be 0, once for each scale_w.", layer=layer)
    shifts = list(message.shift_bit)
    if shifts and (len(shifts) != len(message.scale_w) or (any(shifts) and not all(1 <= n <= 16 for n in shifts))):
        raise RecordError("shift_bit must be 0 or 1 to 16, once for each scale_w.", layer=layer)
    for field in ("cluster", "activation_cluster"):
        _check_cluster(layer, field, list(getattr(message, field)))
    shape = (message.channels, message.height, message.width)
    return LayerRecord(
        scale_d=message.scale_d if message.HasField("scale_d") else None,
        offset_d=message.offset_d,
        scale_w=tuple(message.scale_w),
        offset_w=tuple(message.offset_w),
        shift_bit=tuple(shifts),
        cluster=tuple(message.cluster),
        activation_cluster=tuple(message.activation_cluster),
        input_shape=shape if any(shape) else (),
        skip_fusion=message.skip_fusion,
    )


def _check_cluster(layer: str, field: str, levels: list[int]) -> None:
    for level in levels:
        if level not in _INT8:
            raise RecordError(f"{field}: Cluster center should between [-128, 127], but is {level}.", layer=layer)
    if levels != sorted(set(levels)):
        raise RecordError(f"{field} must be ascending and without repetition.", layer=layer)
