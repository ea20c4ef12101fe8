"""One entry of a record as a protobuf message, and as a LayerRecord."""

from typing import Any

from amct_lite.files.layer_record import LayerRecord

__all__ = ["ACTIVATION_TYPES", "FLOAT", "WEIGHT_TYPES", "activation_bits", "from_entry", "to_entry"]

FLOAT = "FLOAT"
# AMCT's names of widths; those of int8 may be left out.
ACTIVATION_TYPES = {"": 8, "INT8": 8, "INT16": 16}
WEIGHT_TYPES = {"": 8, **{f"INT{bits}": bits for bits in range(4, 9)}}
_SHAPE_FIELDS = ("channels", "height", "width")
# Those of the message that are attributes of LayerRecord under the same name.
_REPEATED_FIELDS = (
    *("scale_w", "offset_w", "shift_bit", "tensor_balance_factor"),
    *("cluster", "cluster_cost", "activation_cluster", "activation_cluster_cost"),
)
_FLAGS = ("skip_fusion", "equalized")


def from_entry(entry: Any) -> LayerRecord:
    """The factors of an entry (a MapFiledEntry message), which is kept along with them."""
    message = entry.value
    same_name: dict[str, Any] = {field: tuple(getattr(message, field)) for field in _REPEATED_FIELDS}
    same_name |= {flag: getattr(message, flag) for flag in _FLAGS}
    return LayerRecord(
        **same_name,
        scale_d=message.scale_d if message.HasField("scale_d") else None,
        offset_d=message.offset_d,
        input_shape=tuple(getattr(message, field) for field in _SHAPE_FIELDS if message.HasField(field)),
        float_weights=message.wts_type == FLOAT,
        activation_bits=activation_bits(message),
        weight_bits=WEIGHT_TYPES.get(message.wts_type, 8),
        fakequant_precision_mode=message.fakequant_precision_mode or "DEFAULT",
        as_read=entry.SerializePartialToString(deterministic=True),
    )


def to_entry(entry: Any, name: str, record: LayerRecord) -> None:
    """Fill an empty entry: with what the record was read from, then with the factors that have changed since."""
    entry.MergeFromString(record.as_read)
    before, message = from_entry(entry), entry.value
    entry.key = name
    if (record.scale_d, record.offset_d) != (before.scale_d, before.offset_d):
        message.ClearField("scale_d")
        message.ClearField("offset_d")
        if record.scale_d is not None:
            message.scale_d, message.offset_d = record.scale_d, record.offset_d
    for field in _REPEATED_FIELDS:
        if getattr(record, field) != getattr(before, field):
            message.ClearField(field)
            getattr(message, field).extend(getattr(record, field))
    if record.input_shape != before.input_shape:
        for field in _SHAPE_FIELDS:
            message.ClearField(field)
        for field, size in zip(_SHAPE_FIELDS, record.input_shape, strict=False):
            setattr(message, field, size)
    for flag in _FLAGS:
        if getattr(record, flag) != getattr(before, flag):
            setattr(message, flag, getattr(record, flag))
    if record.activation_bits != before.activation_bits:
        message.ClearField("dst_type")
        message.act_type = f"INT{record.activation_bits}"
    if (record.weight_bits, record.float_weights) != (before.weight_bits, before.float_weights):
        message.wts_type = FLOAT if record.float_weights else f"INT{record.weight_bits}"
    if record.fakequant_precision_mode != before.fakequant_precision_mode:
        message.fakequant_precision_mode = record.fakequant_precision_mode
    # Clearing a field would make an empty value where the entry has none.
    if message.calibrated_weight:
        message.ClearField("calibrated_weight")
    if not record.calibrated_weight.is_empty:
        message.calibrated_weight = True


def activation_bits(message: Any) -> int:
    """Width of the activation's levels, by a SingleLayerRecord message; AMCT's older records say dst_type."""
    return ACTIVATION_TYPES.get(message.act_type or message.dst_type, 8)
