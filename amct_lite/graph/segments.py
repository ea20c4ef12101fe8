"""A serialised graph cut into parts that run one after the other, each known by a digest of all that it computes.

Cuts lie where a single value crosses (and sizes beside it, which exporters read from an input and use at the end), and
where ONNX Runtime would fuse nothing: behind a quantizer, where the value is small as well, or at a value that several
operators read. So the parts give what the whole gives, bit by bit.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import onnx
import onnx_ir as ir

from amct_lite.graph.serializing import message_parts
from amct_lite.graph.tensor_digests import TensorDigests

__all__ = ["MAX_SEGMENTS", "Segment", "cut"]

# Each is a session with a thread pool of its own, and some 50 microseconds a run.
MAX_SEGMENTS = 32

# What takes the time. One of these is enough for a segment.
_HEAVY = frozenset({"Conv", "ConvInteger", "ConvTranspose", "Gemm", "LSTM", "GRU", "MatMul", "MatMulInteger", "Gather"})
# Between these ONNX Runtime fuses nothing, and it is all the same how it lays them out: a cut in float.
_ENDS = frozenset({"Relu", "Clip", "MaxPool", "Add"})
_BEGINS = frozenset({"Conv", "ConvTranspose"})
_BEGIN_TOGETHER = _BEGINS | _ENDS | {"QuantizeLinear", "Shape"}
# Two runs differ, or might.
_RANDOM = ("Random", "Bernoulli", "Multinomial")
_KNOWN_DOMAINS = frozenset({"", "ai.onnx.ml"})
# Float convolutions of other numbers of channels are computed in ways that depend on what is before them.
_BLOCK = 16
# What sizes are computed by.
_OF_SIZES = frozenset(
    {"Shape", "Gather", "Slice", "Squeeze", "Unsqueeze", "Concat", "Cast", "Add", "Sub", "Mul", "Div"}
)
_BYTES = frozenset({onnx.TensorProto.UINT8, onnx.TensorProto.INT8})

ValueInfos = tuple[onnx.ValueInfoProto, ...]


@dataclass(frozen=True)
class Segment:
    """A part of a graph.

    Attributes:
        digest: Of all that decides what it computes, names included: the same segment of two models has the same one.
        message: A model of its own, without weights.
        weights: Tensors by initializer.
    """

    digest: str
    message: onnx.ModelProto
    weights: Mapping[str, ir.TensorProtocol]

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads: the graph's inputs for the first one, else what crosses."""
        return tuple(info.name for info in self.message.graph.input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it gives: the graph's outputs for the last one, else what crosses."""
        return tuple(info.name for info in self.message.graph.output)

    @property
    def weight_bytes(self) -> int:
        """What its weights take."""
        return sum(int(tensor.nbytes) for tensor in self.weights.values())

    def to_bytes(self) -> bytes:
        """The segment as an ONNX file."""
        return b"".join(message_parts(self.message, self.weights))


def cut(
    proto: onnx.ModelProto,
    weights: Mapping[str, ir.TensorProtocol],
    digests: TensorDigests,
    *,
    max_segments: int = MAX_SEGMENTS,
) -> tuple[Segment, ...]:
    """Cut a model into segments.

    Args:
        proto: The message without weights, from `take_weights_out`; nodes in an order in which they can run.
        weights: Tensors by initializer.
        digests: Of tensors seen before.
        max_segments: The most segments.

    Returns:
        The segments in order, each reading what the one before gives; the whole as one where there is nowhere to cut.
        None at all where it might give something else the next time.
    """
    graph = _Graph(proto, weights)
    if not graph.is_repeatable:
        return ()
    ends = _spread(_chosen(graph.places()), max_segments - 1)
    found, start, inputs = [], 0, tuple(proto.graph.input)
    for place in ends:
        found.append(graph.segment(start, place.end, inputs, place.values, digests))
        start, inputs = place.end, place.values
    found.append(graph.segment(start, len(graph.nodes), inputs, tuple(proto.graph.output), digests))
    return tuple(found)


@dataclass(frozen=True)
class _Place:
    """Where a cut may be: behind which node, what crosses (sizes last), and how many heavy nodes stand before."""

    end: int
    values: ValueInfos
    heavy_before: int

    @property
    def is_small(self) -> bool:
        return self.values[0].type.tensor_type.elem_type in _BYTES


class _Graph:
    def __init__(self, proto: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol]) -> None:
        self._proto, self._weights = proto, weights
        self._constants: dict[str, onnx.NodeProto | None] = dict.fromkeys(weights)
        self.nodes: list[onnx.NodeProto] = []
        for node in proto.graph.node:
            if _is_plain(node) and node.input and all(name in self._constants for name in node.input if name):
                # Every segment that needs it computes it itself, or rather ONNX Runtime does on loading.
                self._constants.update(dict.fromkeys(node.output, node))
            else:
                self.nodes.append(node)
        self._makers = {name: node for node in self.nodes for name in node.output if name}
        self._reads = [[name for name in _reads(node) if name not in self._constants] for node in self.nodes]
        self._infos = _value_infos(proto, weights)
        self._sizes: set[str] = set()
        for node, reads in zip(self.nodes, self._reads, strict=True):
            is_shape = node.op_type == "Shape"
            if is_shape or (node.op_type in _OF_SIZES and reads and all(name in self._sizes for name in reads)):
                self._sizes.update(node.output)

    @property
    def is_repeatable(self) -> bool:
        graph = self._proto.graph
        odd = graph.initializer or graph.sparse_initializer or graph.quantization_annotation
        return not odd and not self._proto.functions and not any(map(_is_unpredictable, _all_nodes(graph)))

    def places(self) -> list[_Place]:
        """Everywhere that a cut may be."""
        readers: dict[str, list[int]] = {}
        for number, names in enumerate(self._reads):
            for name in names:
                readers.setdefault(name, []).append(number)
        last_use = {name: numbers[-1] for name, numbers in readers.items()}
        last_use.update({info.name: len(self.nodes) for info in self._proto.graph.output})
        live = {info.name for info in self._proto.graph.input if info.name in last_use}
        found, heavy = [], 0
        for number, node in enumerate(self.nodes[:-1]):
            heavy += node.op_type in _HEAVY and self._sizes.isdisjoint(node.output)
            live.update(name for name in node.output if name in last_use)
            live = {name for name in live if last_use[name] > number}
            names = sorted(live, key=lambda name: (name in self._sizes, name))
            infos = [self._infos[name] for name in names if name in self._infos]
            if heavy == 0 or len(infos) < len(names) or len(live - self._sizes) != 1:
                continue
            if names[0] in self._makers and self._nothing_fuses(names[0], infos[0], readers[names[0]]):
                found.append(_Place(number + 1, tuple(infos), heavy))
        return found

    def segment(self, start: int, end: int, inputs: ValueInfos, outputs: ValueInfos, digests: TensorDigests) -> Segment:
        """The segment of some nodes."""
        own = self.nodes[start:end]
        wanted = [*(name for node in own for name in _reads(node)), *(info.name for info in outputs)]
        makers, names = self._constants_for(wanted)
        message = onnx.ModelProto(ir_version=self._proto.ir_version, opset_import=self._proto.opset_import)
        message.graph.name = self._proto.graph.name
        message.graph.input.extend(inputs)
        message.graph.output.extend(outputs)
        message.graph.node.extend([*makers, *own])
        weights = {name: self._weights[name] for name in names}
        digest = hashlib.sha256(message.SerializeToString(deterministic=True))
        for name, tensor in weights.items():
            digest.update(f"{name} {digests.of(tensor)}\n".encode())
        return Segment(digest.hexdigest(), message, weights)

    def _nothing_fuses(self, name: str, info: onnx.ValueInfoProto, readers: Sequence[int]) -> bool:
        if info.type.tensor_type.elem_type in _BYTES:
            return True
        if not _has_whole_blocks(info) and any(self._has_folded_weight(self.nodes[reader]) for reader in readers):
            return False
        begins = _BEGIN_TOGETHER if len(readers) > 1 else _BEGINS
        if self._makers[name].op_type not in _ENDS or any(self.nodes[r].op_type not in begins for r in readers):
            return False
        return not any(self._may_be_summed(name, self.nodes[reader]) for reader in readers)

    def _may_be_summed(self, name: str, reader: onnx.NodeProto) -> bool:
        """Whether a convolution in float may start its sums with this value, where both are laid out in blocks."""
        if reader.op_type not in ("Add", "Sum"):
            return False
        makers = [self._makers.get(other) for other in reader.input if other != name]
        return any(maker is not None and self._has_folded_weight(maker) for maker in makers)

    def _has_folded_weight(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Conv" or node.input[1] not in self._constants:
            return False
        maker = self._constants[node.input[1]]
        # ONNX Runtime computes all other constants once, on loading.
        return maker is None or maker.op_type != "DequantizeLinear"

    def _constants_for(self, names: Sequence[str]) -> tuple[list[onnx.NodeProto], list[str]]:
        """The nodes that make constants, in order, and the weights that they and others read."""
        makers: dict[str, onnx.NodeProto] = {}
        weights: dict[str, None] = {}
        pending = [name for name in names if name in self._constants]
        while pending:
            name = pending.pop()
            maker = self._constants[name]
            if maker is None:
                weights[name] = None
            elif maker.output[0] not in makers:
                makers[maker.output[0]] = maker
                pending += [read for read in maker.input if read]
        order = {name: number for number, name in enumerate(self._constants)}
        return [makers[name] for name in sorted(makers, key=order.__getitem__)], sorted(weights)


def _chosen(places: Sequence[_Place]) -> list[_Place]:
    """One place behind each heavy node at most: the last one of those where the value is small."""
    groups = (list(group) for _, group in groupby(places, key=lambda place: place.heavy_before))
    return [max(group, key=lambda place: (place.is_small, place.end)) for group in groups]


def _spread(places: Sequence[_Place], max_places: int) -> list[_Place]:
    """At most so many of the places, evenly spread."""
    count = min(len(places), max_places)
    return [places[(number + 1) * len(places) // count - 1] for number in range(count)]


def _value_infos(proto: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol]) -> dict[str, onnx.ValueInfoProto]:
    """The types of values, those of quantized ones inferred."""
    known = {info.name: info for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}
    for node in proto.graph.node:
        if node.domain != "" or not node.output or node.output[0] in known:
            continue
        source = known.get(node.input[0]) if node.input else None
        if source is None:
            continue
        info = onnx.ValueInfoProto()
        info.CopyFrom(source)
        info.name = node.output[0]
        if node.op_type == "QuantizeLinear":
            zero_point = weights.get(node.input[2]) if len(node.input) > 2 else None
            if zero_point is None:
                continue
            info.type.tensor_type.elem_type = int(zero_point.dtype)
        elif node.op_type == "DequantizeLinear":
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        elif node.op_type not in ("Clip", "Relu"):
            continue
        known[info.name] = info
    return {name: info for name, info in known.items() if info.type.tensor_type.elem_type}


def _has_whole_blocks(info: onnx.ValueInfoProto) -> bool:
    dims = info.type.tensor_type.shape.dim
    return len(dims) > 1 and dims[1].dim_value > 0 and dims[1].dim_value % _BLOCK == 0


def _is_unpredictable(node: onnx.NodeProto) -> bool:
    trains = node.op_type == "Dropout" and len(node.input) > 2
    return trains or node.domain not in _KNOWN_DOMAINS or node.op_type.startswith(_RANDOM)


def _is_plain(node: onnx.NodeProto) -> bool:
    return node.domain in _KNOWN_DOMAINS and not any(True for _ in _bodies(node))


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, in its bodies too: names of the main graph are used for nothing else there."""
    inner = (name for body in _bodies(node) for part in _all_nodes(body) for name in part.input)
    returned = (info.name for body in _bodies(node) for info in body.output)
    return [name for name in (*node.input, *inner, *returned) if name]


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _all_nodes(body)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
