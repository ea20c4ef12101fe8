"""Who reads which version of which blob: Caffe's rules for bottoms, tops, in-place layers and outputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amct_lite.errors import ModelError

__all__ = ["Wiring", "drop_unread_losses", "wire"]


@dataclass(frozen=True)
class Wiring:
    """The values between a network's layers.

    Attributes:
        bottoms: Value names of each layer's bottoms.
        tops: Value names of each layer's tops.
        outputs: Blobs that no layer reads, sorted by name, as Caffe sorts a net's outputs.
        blobs: Blob -> value name of its last version.
    """

    bottoms: list[tuple[str, ...]]
    tops: list[tuple[str, ...]]
    outputs: tuple[str, ...]
    blobs: dict[str, str]


def drop_unread_losses(layers: Sequence[tuple[Any, int | None]]) -> tuple[list[tuple[Any, int | None]], set[str]]:
    """Leave out losses and measures whose results nothing reads: at inference there is no label to give them.

    Args:
        layers: LayerParameter messages, each with its line.

    Returns:
        The other layers, and the blobs that only the dropped ones read: labels, which need be no inputs any more.
    """
    read = {blob for layer, _ in layers for blob in layer.bottom}
    dropped = [
        layer for layer, _ in layers if _is_measure(layer) and read.isdisjoint(set(layer.top) - set(layer.bottom))
    ]
    names = {id(layer) for layer in dropped}
    kept = [(layer, line) for layer, line in layers if id(layer) not in names]
    still_read = {blob for layer, _ in kept for blob in layer.bottom}
    produced = {blob for layer, _ in kept for blob in layer.top if layer.bottom}
    return kept, {blob for layer in dropped for blob in layer.bottom} - still_read - produced


def _is_measure(layer: Any) -> bool:
    return layer.type.endswith("Loss") or layer.type in ("Accuracy", "SegAccuracy", "LabelsequenceAccuracy")


def wire(inputs: Mapping[str, Any], layers: Sequence[tuple[Any, int | None]]) -> Wiring:
    """Connect the layers.

    As in Caffe, a layer may not work in place on a blob that another layer has read before it: Caffe makes a copy
    for each reader, under names of their own, and then the top is made twice.

    Args:
        inputs: The network's inputs.
        layers: LayerParameter messages, each with its line, in the file's order.

    Raises:
        ModelError: A layer reads a blob that nothing before it makes, a blob is made twice, or it is changed in place
            although another layer has read it.
    """
    last: dict[str, int] = dict.fromkeys(inputs, 0)
    readers: dict[str, str] = {}
    for layer, line in layers:
        _check_bottoms(layer, line, last)
        for index, blob in enumerate(layer.top):
            in_place = index < len(layer.bottom) and layer.bottom[index] == blob
            if in_place and blob in readers:
                raise ModelError(
                    f"{_where(line)}it changes the blob {blob!r} in place, which layer {readers[blob]!r} reads too;"
                    f" to Caffe the top blob {blob!r} is then produced by multiple sources.",
                    layer=layer.name,
                    remedy="Give its top a name of its own.",
                )
            if blob in last and not in_place:
                raise ModelError(
                    f"{_where(line)}its top blob {blob!r} is made by several layers.",
                    layer=layer.name,
                    remedy="Give each top a name of its own; only a layer that works in place names its bottom again.",
                )
            last[blob] = last.get(blob, 0) + 1
        readers.update(dict.fromkeys(layer.bottom, layer.name))
        for blob in layer.top:
            readers.pop(blob, None)
    names = {blob: _version_names(blob, count, inputs, last) for blob, count in last.items()}

    current: dict[str, int] = dict.fromkeys(inputs, 0)
    bottoms, tops = [], []
    unread: set[str] = set()
    for layer, _ in layers:
        bottoms.append(tuple(names[blob][current[blob]] for blob in layer.bottom))
        unread -= set(layer.bottom)
        for blob in layer.top:
            current[blob] = current.get(blob, 0) + 1
        tops.append(tuple(names[blob][current[blob]] for blob in layer.top))
        unread |= set(layer.top)
    outputs = tuple(sorted(unread, key=str.encode))
    return Wiring(bottoms, tops, outputs, {blob: versions[-1] for blob, versions in names.items()})


def _check_bottoms(layer: Any, line: int | None, known: Mapping[str, int]) -> None:
    for index, blob in enumerate(layer.bottom):
        if blob not in known:
            raise ModelError(
                f"{_where(line)}Unknown bottom blob {blob!r} (layer {layer.name!r}, bottom index {index}): "
                "no input and no layer before it makes it.",
                layer=layer.name,
                remedy="Correct the name, or put the layer behind the one that makes the blob.",
            )


def _version_names(blob: str, count: int, inputs: Mapping[str, Any], taken: Iterable[str]) -> list[str]:
    """Value name of each version of a blob; version 0 is the input, and does not exist for other blobs."""
    numbered = count if blob in inputs else count - 1
    names: list[str] = []
    number = 0
    while len(names) < numbered:
        number += 1
        name = f"{blob}#{number}"
        if name not in taken:  # a blob may really be called so
            names.append(name)
    return [blob, *names] if blob in inputs else ["", *names, blob]


def _where(line: int | None) -> str:
    return "" if line is None else f"line {line}: "
