"""The part of a network in front of a tensor, as a session that only runs that part."""

from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from amct_lite.graph.cloning import clone_ir
from amct_lite.graph.runtime import create_session
from amct_lite.refine.samples import Feed
from amct_lite.types import FloatArray

__all__ = ["Prefix"]


class Prefix:
    """Computes one tensor of a graph."""

    def __init__(self, model: ir.Model, tensor: str, *, sess_options: Any = None) -> None:
        """Cut a graph behind a tensor.

        Args:
            model: The graph; it is not changed.
            tensor: A tensor of its main graph.
            sess_options: The user's onnxruntime.SessionOptions.
        """
        self._tensor = tensor
        self._is_input = any(value.name == tensor for value in model.graph.inputs)
        if self._is_input:
            return
        part = clone_ir(model)
        wanted = next(value for node in part.graph for value in node.outputs if value.name == tensor)
        part.graph.outputs.clear()
        part.graph.outputs.append(wanted)
        RemoveUnusedNodesPass()(part)
        used = {value.name for value in part.graph.inputs if value.uses()}
        part.graph.inputs[:] = [value for value in part.graph.inputs if value.name in used]
        self._inputs = used
        self._session = create_session(part, sess_options=sess_options)

    def run(self, feed: Feed) -> FloatArray:
        """The tensor for one feed of the whole graph's inputs."""
        if self._is_input:
            return feed[self._tensor]
        values: FloatArray = self._session.run(
            [self._tensor], {name: array for name, array in feed.items() if name in self._inputs}
        )[0]
        return values
