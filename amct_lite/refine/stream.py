"""Samples on their way through a network: any tensor on demand, from the last place where all that is alive was kept.

Without it every layer would run the network from its inputs, which costs the square of its depth.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from amct_lite.graph.cloning import clone_ir
from amct_lite.graph.runtime import create_session
from amct_lite.refine.samples import Feed

__all__ = ["Stream"]

Array = npt.NDArray[Any]

# What one stream may keep; two streams and what a layer needs stay below 1.5 GB.
MAX_KEPT_BYTES = 192 * 2**20


class Stream:
    """Runs samples through a graph, which may be edited behind the place that was reached."""

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], *, sess_options: Any = None) -> None:
        """Start at the network's inputs.

        Args:
            model: The graph; it is not changed, and read again at each call.
            feeds: The samples.
            sess_options: The user's onnxruntime.SessionOptions.
        """
        self._model, self._options = model, sess_options
        self._kept: list[dict[str, Array]] = [dict(feed) for feed in feeds]

    def __len__(self) -> int:
        return len(self._kept)

    def tensor(self, name: str) -> Iterator[Array]:
        """A tensor of the main graph, for one feed after the other."""
        for values in self._run([name]):
            yield values[name]

    def advance(self, node_name: str) -> None:
        """Keep what is alive in front of a node, unless it is too large: later calls start there.

        Args:
            node_name: A node of the main graph in front of which nothing will change any more.
        """
        alive = _alive_before(self._model.graph, node_name)
        if not alive or set(alive) <= set(self._kept[0]):
            self._forget(alive)
            return
        kept: list[dict[str, Array]] = []
        for values in self._run(alive):
            size = sum(array.nbytes for array in values.values())
            if size * len(self._kept) > MAX_KEPT_BYTES:
                return
            kept.append({name: array.copy() for name, array in values.items()})
        self._kept = kept

    def _forget(self, alive: Sequence[str]) -> None:
        if alive:
            self._kept = [{name: values[name] for name in alive} for values in self._kept]

    def _run(self, names: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        computed = [name for name in names if name not in self._kept[0]]
        part = _part(self._model, self._kept[0], computed) if computed else None
        session = None
        if part is not None:
            session = create_session(part, sess_options=self._options, keep_freed_memory=False)
        inputs = () if part is None else tuple(str(value.name) for value in part.graph.inputs)
        for kept in self._kept:
            found = {} if session is None else session.run(computed, {name: kept[name] for name in inputs})
            yield {**{name: kept[name] for name in names if name in kept}, **dict(zip(computed, found, strict=True))}


def _part(model: ir.Model, kept: Mapping[str, Array], names: Sequence[str]) -> ir.Model:
    """The part of a graph between kept tensors, which become its inputs, and the wanted ones."""
    part = clone_ir(model)
    graph = part.graph
    values = {value.name: value for node in graph for value in node.outputs}
    graph.outputs.clear()
    for name, array in kept.items():
        old = values.get(name)
        if old is None:
            continue
        new = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
        ir.convenience.replace_all_uses_with(old, new)
        old.name = f"{name}.computed"
        graph.inputs.append(new)
    graph.outputs.extend(values[name] for name in names)
    RemoveUnusedNodesPass()(part)
    used = [value for value in graph.inputs if value.uses()]
    graph.inputs[:] = used
    return part


def _alive_before(graph: ir.Graph, node_name: str) -> list[str]:
    """Tensors made in front of a node, graph inputs included, that it or a node behind it reads."""
    position = {node: number for number, node in enumerate(graph)}
    cut = next(number for node, number in position.items() if node.name == node_name)

    def is_read_behind(value: ir.Value) -> bool:
        # A node in a subgraph has no position here: its value is kept to be safe.
        return any(position.get(user, cut) >= cut for user, _ in value.uses())

    made = [value for node, number in position.items() if number < cut for value in node.outputs]
    return [str(value.name) for value in (*graph.inputs, *made) if value.name and is_read_behind(value)]
