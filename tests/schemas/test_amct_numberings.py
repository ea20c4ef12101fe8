"""AMCT's two numberings of a record: whatever they can say, ours can say in the same words."""

import pytest
from google.protobuf import text_format

from amct_lite.files.protos import message_class

OURS = {
    name.rpartition(".")[2]: message_class("scale_offset_record", f"amct_lite.{name}").DESCRIPTOR
    for name in (
        *("ScaleOffsetRecord", "ScaleOffsetRecord.MapFiledEntry", "SingleLayerRecord", "SingleLayerKVCacheRecord"),
        *("PruneRecord", "PruneNode", "AttrProto"),
    )
}
SCHEMAS = ("amct_caffe_record", "amct_onnx_record")


def root_class(schema: str):
    return message_class(schema, f"{schema}.ScaleOffsetRecord")


def messages_of(schema: str):
    """Every message that a record of this schema may hold."""
    found, waiting = {}, [root_class(schema).DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name not in found:
            found[message.name] = message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return found


def label(field) -> str:
    # Newer versions of protobuf have is_repeated, older ones only label.
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    required = field.is_required if hasattr(field, "is_required") else field.label == field.LABEL_REQUIRED
    return "repeated" if repeated else "required" if required else "optional"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_field_of_amct_is_in_ours_by_name_kind_and_label(schema: str) -> None:
    for name, message in messages_of(schema).items():
        for field in message.fields:
            ours = OURS[name].fields_by_name[field.name]
            assert (ours.type, label(ours)) == (field.type, label(field)), f"{name}.{field.name}"
            if field.message_type is not None:
                assert ours.message_type.name == field.message_type.name
            if field.enum_type is not None:
                numbers = {value.name: value.number for value in field.enum_type.values}
                assert {value.name: value.number for value in ours.enum_type.values} == numbers


@pytest.mark.parametrize(
    ("schema", "numbers"),
    [
        ("amct_caffe_record", {"scale_d": 1, "scale_w": 3, "channels": 6, "height": 7, "width": 8, "skip_fusion": 9}),
        (
            "amct_onnx_record",
            {"shift_bit": 5, "tensor_balance_factor": 6, "dst_type": 10, "offset_r": 24},
        ),
    ],
)
def test_the_numbers_are_those_that_amct_gives(schema: str, numbers: dict[str, int]) -> None:
    fields = messages_of(schema)["SingleLayerRecord"].fields_by_name
    assert {name: fields[name].number for name in numbers} == numbers
    assert "cluster" not in fields, "its number is not known"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_text_of_one_numbering_is_text_of_the_other(schema: str) -> None:
    text = 'record { key: "conv1" value { scale_d: 0.5 offset_d: -3 scale_w: 1 offset_w: 0 skip_fusion: true } }'
    theirs = text_format.Parse(text, root_class(schema)())
    ours = text_format.Parse(text, message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")())
    assert text_format.MessageToString(theirs) == text_format.MessageToString(ours)
