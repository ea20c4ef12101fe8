"""What an entry of a record must hold, whatever the model: AMCT's checks, with its messages in ours."""

import math
from collections.abc import Iterator
from typing import Any

from amct_lite.errors import RecordError
from amct_lite.files.record_message import ACTIVATION_TYPES, FLOAT, WEIGHT_TYPES, activation_bits

__all__ = ["check_entry"]

# AMCT refuses scales outside (DBL_EPSILON, 1 / DBL_EPSILON).
_SMALLEST_SCALE = 2.220446049250313e-16
_INT8 = range(-128, 128)
_INT16 = range(-(2**15), 2**15)
_REMEDY = "Correct the file, or calibrate again."
_PRECISION_MODES = ("", "DEFAULT", "FORCE_FP16_QUANT")


def check_entry(entry: Any, place: str) -> None:
    """Check one entry (a MapFiledEntry message).

    Args:
        entry: The entry.
        place: What it stands in, for the message: "The record file record.txt".

    Raises:
        RecordError: A value is out of its range, or of a kind that is not supported.
    """
    if not entry.key:
        raise RecordError(f"{place}: an entry has no key.", remedy=_REMEDY)
    for mistake, remedy in _mistakes(entry.key, entry.value):
        raise RecordError(f"{place}: {mistake}", layer=entry.key, remedy=remedy)


def _mistakes(layer: str, message: Any) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do about it."""
    yield from ((mistake, f"{_REMEDY[:-1]}, or skip the layer.") for mistake in _scales(layer, message))
    yield from ((mistake, _REMEDY) for mistake in (*_offsets(layer, message), *_shifts(layer, message)))
    for field in ("cluster", "activation_cluster"):
        yield from ((mistake, _REMEDY) for mistake in _levels(message, field))
    yield from (
        (mistake, "Quantize the layer with amct_lite, which writes no such entries.") for mistake in _kinds(message)
    )


def _scales(layer: str, message: Any) -> Iterator[str]:
    for field in ("scale_d", "scale_h"):
        if message.HasField(field) and not _is_scale(getattr(message, field)):
            yield _outside(field, getattr(message, field), layer)
    for field in ("scale_w", "scale_r", "tensor_balance_factor"):
        for scale in getattr(message, field):
            if not _is_scale(scale):
                yield _outside(field, scale, layer)


def _is_scale(value: float) -> bool:
    return math.isfinite(value) and _SMALLEST_SCALE < value < 1 / _SMALLEST_SCALE


def _outside(field: str, value: float, layer: str) -> str:
    # "shoule" and "positivate" are AMCT's, and what people search for.
    return (
        f"{field}'s value shoule be in positivate range of float32 in layer {layer}:"
        f" a scale of {value!r} is not within (2.2e-16, 4.5e15)."
    )


def _offsets(layer: str, message: Any) -> Iterator[str]:
    allowed = _INT8 if activation_bits(message) == 8 else _INT16
    for field in ("offset_d", "offset_h"):
        offset = getattr(message, field)
        if offset not in allowed:
            interval = f"[{allowed[0]}, {allowed[-1]}]"
            yield (
                f"{field}'s value should be in {interval} in layer {layer}:"
                f" {field} must be in {interval}, but is {offset}."
            )
    for offsets, scales in (("offset_w", "scale_w"), ("offset_r", "scale_r")):
        values = list(getattr(message, offsets))
        if any(values) or len(values) not in (0, len(getattr(message, scales))):
            yield f"{offsets}'s value should be 0 in layer {layer}: {offsets} must be 0, once for each {scales}."


def _shifts(layer: str, message: Any) -> Iterator[str]:
    shifts = list(message.shift_bit)
    mixed = any(shifts) and not all(1 <= shift <= 16 for shift in shifts)
    if mixed or len(shifts) not in (0, len(message.scale_w)):
        yield (
            f"shift_bit's value shoule be in [1, 16] or all be 0 in layer {layer}:"
            " shift_bit must be 0 or 1 to 16, once for each scale_w."
        )


def _levels(message: Any, field: str) -> Iterator[str]:
    levels, costs = list(getattr(message, field)), list(getattr(message, f"{field}_cost"))
    outside = [level for level in levels if level not in _INT8]
    if outside:
        yield f"{field}: Cluster center should between [-128, 127], but is {outside[0]}."
    if levels != sorted(set(levels)):
        yield f"{field} must be ascending and without repetition."
    if len(costs) not in (0, len(levels)) or not all(math.isfinite(cost) and cost >= 0 for cost in costs):
        yield f"{field}_cost must be finite and not negative, once for each {field}."


def _kinds(message: Any) -> Iterator[str]:
    """What AMCT would do to the layer and amct_lite would not: numbers would come out wrong without a word."""
    if message.wts_type == FLOAT and (message.scale_w or message.cluster):
        yield "scale_w and cluster are for quantized weights, but wts_type is FLOAT."
    kinds = {
        "dst_type": tuple(ACTIVATION_TYPES),
        "act_type": tuple(ACTIVATION_TYPES),
        "wts_type": (*WEIGHT_TYPES, FLOAT),
        "fakequant_precision_mode": _PRECISION_MODES,
    }
    for field, known in kinds.items():
        found = getattr(message, field)
        if found not in known:
            names = ", ".join(name for name in known if name)
            yield f"Do not support {field} {found} in record file: {field} must be one of {names}, but is {found}."
    if activation_bits(message) != 8 and message.activation_cluster:
        yield "activation_cluster is for activations of 8 bits."
    if WEIGHT_TYPES.get(message.wts_type, 8) != 8 and message.cluster:
        yield "cluster is for weights of 8 bits."
