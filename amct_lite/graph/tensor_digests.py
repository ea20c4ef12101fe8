"""Digests of weights, each worked out once for as long as its array lives."""

import hashlib
import weakref
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["TensorDigests"]

# Hashing so little takes no longer than looking it up.
_SMALL_BYTES = 1024


class TensorDigests:
    """Remembers digests by array object; arrays of weights never change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], str]] = {}

    def of(self, tensor: ir.TensorProtocol) -> str:
        """The digest of a tensor's type, shape and numbers."""
        array = tensor.raw if isinstance(tensor, ir.Tensor) else None
        if not isinstance(array, np.ndarray) or array.nbytes < _SMALL_BYTES:
            return _digest(tensor)
        known = self._known.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        number, found = id(array), _digest(tensor)
        # Without the array, the entry would be taken for that of the next one at its place in memory.
        self._known[number] = (weakref.ref(array, lambda _: self._known.pop(number, None)), found)
        return found


def _digest(tensor: ir.TensorProtocol) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tensor.shape} ".encode())
    if isinstance(tensor, ir.Tensor) and isinstance(tensor.raw, np.ndarray):
        digest.update(np.ascontiguousarray(tensor.raw).reshape(-1).view(np.uint8).data)
    else:
        digest.update(tensor.tobytes())
    return digest.hexdigest()
