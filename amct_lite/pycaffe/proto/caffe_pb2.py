"""Message classes under pycaffe's module name: `caffe_pb2.BlobProto()`, `caffe_pb2.NetParameter()`.

They are built from `schemas/caffe.proto` at first use, in a pool of their own, so that they work beside any other
package that brings Caffe's messages.
"""

from typing import Any

from amct_lite.files.protos import message_class

__all__: list[str] = []

# pycaffe's modules of enum values; all that scripts use.
TRAIN, TEST = 0, 1


def __getattr__(name: str) -> Any:
    """Find a message class by its name (PEP 562)."""
    # Python asks every module for such names, and doctest for __wrapped__.
    if not name.startswith("_"):
        try:
            return message_class("caffe", f"caffe.{name}")
        except KeyError:
            pass
    raise AttributeError(f"module {__name__!r} has no message {name!r}")
