"""The scale/offset record on disk: AMCT's protobuf text, read with its checks and written whole.

Codebooks, fitted weights and biases do not fit into it: they stand beside it in `{record}.weights.npz`, which knows
which record it belongs to. Why ranges were chosen stands beside it too, in `{record}.ranges.json`.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from amct_lite.codebook.codebook import Codebook
from amct_lite.errors import RecordError
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.json_document import read_text
from amct_lite.files.protos import message_class
from amct_lite.files.range_file import RangeChoice, range_file, read_ranges, write_ranges
from amct_lite.files.weights_file import CalibratedWeight, read_weights, write_weights

__all__ = ["LayerRecord", "range_choices", "read_record", "weights_file", "write_record"]

# AMCT refuses scales outside (DBL_EPSILON, 1 / DBL_EPSILON).
_SMALLEST_SCALE = 2.220446049250313e-16
_INT8 = range(-128, 128)
_INT16 = range(-(2**15), 2**15)
_FLOAT = "FLOAT"
# AMCT's names of widths; those of int8 may be left out.
_ACTIVATION_TYPES = {"": 8, "INT8": 8, "INT16": 16}
_WEIGHT_TYPES = {"": 8, **{f"INT{bits}": bits for bits in range(4, 9)}}
_SHAPE_FIELDS = ("channels", "height", "width")
_REMEDY = "Correct the file, or calibrate again."


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
        cluster_cost: What each level of `cluster` costs beside its squared error, for entropy-aware NUQ: without it
            the reader could not find the assignment again. () where every weight goes to its nearest level.
        activation_cluster: The int8 levels that NUQ keeps for the activations, ascending; () without NUQ.
        activation_cluster_cost: What each level of `activation_cluster` costs beside its squared error; () where every
            value goes to its nearest level.
        input_shape: (channels, height, width) of the layer's input, () where unknown.
        skip_fusion: True where nothing was folded into the layer.
        range_choice: How "auto" chose the activation's range; None with other algorithms.
        float_weights: True where the weights stay float and only the activation is quantized.
        activation_bits: Width of the activation grid's levels, 8 or 16; AMCT's act_type.
        weight_bits: Width of a uniform weight's levels, 4 to 8; AMCT's wts_type.
        codebook: What the weights become in place of scale_w; None where they do not become a codebook.
        weight: float32 array of the stored weight's shape that takes its place, before it is quantized or for good;
            None for the model's own.
        bias: float32 array, shape (out_channels,), that takes the bias's place; None for the model's own.
        tensor_balance_factor: By what each channel of the input is divided before it is quantized, the weight being
            multiplied by it; () without balancing. `scale_w` and `weight` are for the multiplied weight.
        equalized: True where the factors are for the weight that cross-layer equalization makes of the model's own.
        fakequant_precision_mode: Whether the fake-quant form rounds as a device that quantizes in float16:
            "FORCE_FP16_QUANT", else "DEFAULT".
    """

    scale_d: float | None = None
    offset_d: int = 0
    scale_w: tuple[float, ...] = ()
    offset_w: tuple[int, ...] = ()
    shift_bit: tuple[int, ...] = ()
    cluster: tuple[int, ...] = ()
    cluster_cost: tuple[float, ...] = ()
    activation_cluster: tuple[int, ...] = ()
    activation_cluster_cost: tuple[float, ...] = ()
    input_shape: tuple[int, ...] = ()
    skip_fusion: bool = False
    float_weights: bool = False
    activation_bits: int = 8
    weight_bits: int = 8
    tensor_balance_factor: tuple[float, ...] = ()
    equalized: bool = False
    fakequant_precision_mode: str = "DEFAULT"
    range_choice: RangeChoice | None = dataclasses.field(default=None, compare=False)
    codebook: Codebook | None = dataclasses.field(default=None, compare=False)
    weight: npt.NDArray[np.float32] | None = dataclasses.field(default=None, compare=False)
    bias: npt.NDArray[np.float32] | None = dataclasses.field(default=None, compare=False)

    @property
    def calibrated_weight(self) -> CalibratedWeight:
        """What does not fit into a record."""
        return CalibratedWeight(self.codebook, self.weight, self.bias)


def range_choices(records: Mapping[str, LayerRecord]) -> dict[str, RangeChoice]:
    """Layer name -> how "auto" chose its range, for the layers that have one."""
    return {name: record.range_choice for name, record in records.items() if record.range_choice is not None}


def weights_file(record_file: Path) -> Path:
    """Where the codebooks, fitted weights and biases of a record are."""
    return record_file.with_name(f"{record_file.name}.weights.npz")


def write_record(records: Mapping[str, LayerRecord], path: Path) -> None:
    """Write a record file, layers in the mapping's order, and beside it the calibrated weights, if any."""
    root = message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")()
    for name, record in records.items():
        entry = root.record.add(key=name)
        _fill(entry.value, record)
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
    records = {}
    for entry in root.record:
        mistake, remedy = _mistake(entry)
        if mistake is not None:
            raise RecordError(f"The record file {path}: {mistake}", layer=entry.key or None, remedy=remedy)
        records[entry.key] = _from_message(entry.value)
    for name, choice in read_ranges(range_file(path), _digest(text)).items():
        if name in records:
            records[name] = dataclasses.replace(records[name], range_choice=choice)
    beside = [entry.key for entry in root.record if entry.value.calibrated_weight]
    return {**records, **_with_weights(path, _digest(text), {name: records[name] for name in beside})}


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


def _fill(message: Any, record: LayerRecord) -> None:
    if record.scale_d is not None:
        message.scale_d = record.scale_d
        message.offset_d = record.offset_d
    message.scale_w.extend(record.scale_w)
    message.offset_w.extend(record.offset_w)
    message.shift_bit.extend(record.shift_bit)
    message.cluster.extend(record.cluster)
    message.cluster_cost.extend(record.cluster_cost)
    message.activation_cluster.extend(record.activation_cluster)
    message.activation_cluster_cost.extend(record.activation_cluster_cost)
    message.tensor_balance_factor.extend(record.tensor_balance_factor)
    for field, size in zip(_SHAPE_FIELDS, record.input_shape, strict=False):
        setattr(message, field, size)
    if record.skip_fusion:
        message.skip_fusion = True
    if record.equalized:
        message.equalized = True
    if record.fakequant_precision_mode != "DEFAULT":
        message.fakequant_precision_mode = record.fakequant_precision_mode
    if record.float_weights:
        message.wts_type = _FLOAT
    elif record.weight_bits != 8:
        message.wts_type = f"INT{record.weight_bits}"
    if record.activation_bits != 8:
        message.act_type = f"INT{record.activation_bits}"
    if not record.calibrated_weight.is_empty:
        message.calibrated_weight = True


def _from_message(message: Any) -> LayerRecord:
    return LayerRecord(
        scale_d=message.scale_d if message.HasField("scale_d") else None,
        offset_d=message.offset_d,
        scale_w=tuple(message.scale_w),
        offset_w=tuple(message.offset_w),
        shift_bit=tuple(message.shift_bit),
        cluster=tuple(message.cluster),
        cluster_cost=tuple(message.cluster_cost),
        activation_cluster=tuple(message.activation_cluster),
        activation_cluster_cost=tuple(message.activation_cluster_cost),
        input_shape=tuple(getattr(message, field) for field in _SHAPE_FIELDS if message.HasField(field)),
        skip_fusion=message.skip_fusion,
        float_weights=message.wts_type == _FLOAT,
        activation_bits=_activation_bits(message),
        weight_bits=_WEIGHT_TYPES.get(message.wts_type, 8),
        tensor_balance_factor=tuple(message.tensor_balance_factor),
        equalized=message.equalized,
        fakequant_precision_mode=message.fakequant_precision_mode or "DEFAULT",
    )


def _activation_bits(message: Any) -> int:
    # AMCT's older records say dst_type.
    return _ACTIVATION_TYPES.get(message.act_type or message.dst_type, 8)


def _mistake(entry: Any) -> tuple[str | None, str]:
    """What is wrong with one layer's entry, None where nothing is, and what to do about it."""
    message = entry.value
    if not entry.key:
        return "an entry has no key.", _REMEDY
    scales = [*message.scale_w, *message.tensor_balance_factor]
    scales += [message.scale_d] if message.HasField("scale_d") else []
    for scale in scales:
        if not (math.isfinite(scale) and _SMALLEST_SCALE < scale < 1 / _SMALLEST_SCALE):
            return f"a scale of {scale!r} is not within (2.2e-16, 4.5e15).", f"{_REMEDY[:-1]}, or skip the layer."
    allowed = _INT8 if _activation_bits(message) == 8 else _INT16
    if message.offset_d not in allowed:
        return f"offset_d must be in [{allowed[0]}, {allowed[-1]}], but is {message.offset_d}.", _REMEDY
    if any(message.offset_w) or len(message.offset_w) not in (0, len(message.scale_w)):
        return "offset_w must be 0, once for each scale_w.", _REMEDY
    shifts = list(message.shift_bit)
    if shifts and (len(shifts) != len(message.scale_w) or (any(shifts) and not all(1 <= n <= 16 for n in shifts))):
        return "shift_bit must be 0 or 1 to 16, once for each scale_w.", _REMEDY
    for field in ("cluster", "activation_cluster"):
        levels = list(getattr(message, field))
        outside = [level for level in levels if level not in _INT8]
        if outside:
            return f"{field}: Cluster center should between [-128, 127], but is {outside[0]}.", _REMEDY
        if levels != sorted(set(levels)):
            return f"{field} must be ascending and without repetition.", _REMEDY
        costs = list(getattr(message, f"{field}_cost"))
        if len(costs) not in (0, len(levels)) or not all(math.isfinite(cost) and cost >= 0 for cost in costs):
            return f"{field}_cost must be finite and not negative, once for each {field}.", _REMEDY
    if message.wts_type == _FLOAT and (message.scale_w or message.cluster):
        return "scale_w and cluster are for quantized weights, but wts_type is FLOAT.", _REMEDY
    return _unsupported(message), "Quantize the layer with amct_lite, which writes no such entries."


def _unsupported(message: Any) -> str | None:
    """What AMCT would do to the layer and amct_lite would not: numbers would come out wrong without a word."""
    kinds = {"dst_type": _ACTIVATION_TYPES, "act_type": _ACTIVATION_TYPES, "wts_type": {**_WEIGHT_TYPES, _FLOAT: 0}}
    for field, known in kinds.items():
        found = getattr(message, field)
        if found not in known:
            names = ", ".join(name for name in known if name)
            return f"{field} must be one of {names}, but is {found}."
    if _activation_bits(message) != 8 and message.activation_cluster:
        return "activation_cluster is for activations of 8 bits."
    if _WEIGHT_TYPES.get(message.wts_type, 8) != 8 and message.cluster:
        return "cluster is for weights of 8 bits."
    return None
