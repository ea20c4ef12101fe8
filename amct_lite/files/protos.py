"""Protobuf messages from the schemas that ship with the package, on any protobuf runtime.

Generated `_pb2` modules are bound to the protobuf version that made them, and register themselves in one pool for the
whole process, where another package's message of the same name collides. We ship the compiled descriptors instead
(`schemas/*.binpb`, made by `schemas/compile.py`) and build the classes in a pool of our own. A descriptor set is
itself a protobuf message, whose format does not change, so one file serves every runtime: the tests of these formats
pass with protobuf 4.25.1, the oldest that setup.cfg allows, and with 7.36.2.
"""

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["message_class"]


def message_class(schema: str, message: str) -> Any:
    """The class of a message.

    Args:
        schema: The schema's file name without its ending, for example "scale_offset_record".
        message: The message's full name, for example "amct_lite.ScaleOffsetRecord".

    Example:
        >>> record = message_class("scale_offset_record", "amct_lite.SingleLayerRecord")(scale_d=0.5)
        >>> record.scale_d
        0.5
    """
    return message_factory.GetMessageClass(_pool(schema).FindMessageTypeByName(message))


@cache
def _pool(schema: str) -> descriptor_pool.DescriptorPool:
    data = resources.files("amct_lite.schemas").joinpath(f"{schema}.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
