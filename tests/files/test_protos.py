"""Our messages live in a pool of their own, whatever another package has registered."""

import subprocess
import sys

import pytest

from amct_lite.files.protos import message_class

# Another package's messages of the same names and file name, with other fields, in the pool of the whole process.
COLLISION = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
theirs = descriptor_pb2.FileDescriptorProto(name="scale_offset_record.proto", package="amct_lite", syntax="proto2")
for name in ("ScaleOffsetRecord", "SingleLayerRecord"):
    message = theirs.message_type.add(name=name)
    message.field.add(name="other", number=1, type=9, label=1)
{before}
from amct_lite.files.protos import message_class
ours = message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")()
ours.record.add(key="conv1").value.scale_d = 0.5
{after}
descriptor = descriptor_pool.Default().FindMessageTypeByName("amct_lite.ScaleOffsetRecord")
mine = message_factory.GetMessageClass(descriptor)(other="x")
assert text_format.MessageToString(mine).strip() == 'other: "x"'
again = message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")()
text_format.Parse(text_format.MessageToString(ours), again)
assert again == ours and again.record[0].value.scale_d == 0.5
"""
REGISTER = "descriptor_pool.Default().AddSerializedFile(theirs.SerializeToString())"


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize(("before", "after"), [(REGISTER, ""), ("", REGISTER)], ids=["theirs first", "ours first"])
def test_messages_of_the_same_name_in_the_default_pool_do_not_collide(implementation, before, after) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLISION.format(before=before, after=after)],
        capture_output=True,
        text=True,
        check=False,
        env={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
    )
    assert done.returncode == 0, done.stderr


def test_the_class_of_a_message_is_always_the_same() -> None:
    name = "amct_lite.SingleLayerRecord"
    assert message_class("scale_offset_record", name) is message_class("scale_offset_record", name)


def test_fields_that_only_amct_lite_knows_are_numbered_from_1000() -> None:
    fields = message_class("scale_offset_record", "amct_lite.SingleLayerRecord").DESCRIPTOR.fields_by_name
    assert fields["activation_cluster"].number >= 1000
    assert [fields[name].number for name in ("scale_d", "offset_d", "scale_w", "offset_w", "shift_bit")] == [
        1,
        2,
        3,
        4,
        5,
    ]
