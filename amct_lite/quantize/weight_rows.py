"""A stored weight as a matrix with one row an output channel, or by channels, and back, for every kind of layer."""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from amct_lite.types import Layer, LayerKind

__all__ = [
    "WeightLayout",
    "from_channels",
    "from_rows",
    "num_input_channels",
    "to_channels",
    "to_rows",
    "weight_layout",
]

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class WeightLayout:
    """How rows become a stored weight: `rows.reshape(split_shape).transpose(permutation).reshape(weight_shape)`.

    Attributes:
        layer: Name of the layer, for messages.
        weight_shape: Shape of the weight as stored.
        split_shape: Shape of the row matrix with its axes taken apart; the leading ones make up the rows.
        num_row_axes: How many leading axes make up the rows.
        permutation: Where the axes of `split_shape` go.
        scale_axis: The axis of the stored weight along which the rows run; None where no axis does.
    """

    layer: str
    weight_shape: tuple[int, ...]
    split_shape: tuple[int, ...]
    num_row_axes: int
    permutation: tuple[int, ...]
    scale_axis: int | None

    @property
    def rows(self) -> int:
        """Output channels."""
        return math.prod(self.split_shape[: self.num_row_axes])

    @property
    def columns(self) -> int:
        """Weights of an output channel."""
        return math.prod(self.split_shape[self.num_row_axes :])

    @property
    def row_shape(self) -> tuple[int, ...]:
        """`split_shape` with 1 for the columns: the shape of one number for each row."""
        return self.split_shape[: self.num_row_axes] + (1,) * (len(self.split_shape) - self.num_row_axes)

    @property
    def keeps_order(self) -> bool:
        """Whether the rows, one after the other, are the stored weight: the permutation moves axes of size 1 only."""
        moving = [axis for axis in self.permutation if self.split_shape[axis] > 1]
        return moving == sorted(moving)

    def stored(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes of some shape like `split_shape`, in the order that the axes have in the stored weight."""
        return tuple(shape[axis] for axis in self.permutation)

    def to_rows(self, weight: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """A stored weight as rows.

        Args:
            weight: Array of shape `weight_shape`.

        Returns:
            Array of the same type, shape (rows, columns).
        """
        split = weight.reshape(self.stored(self.split_shape)).transpose(np.argsort(self.permutation))
        return split.reshape(self.rows, self.columns)

    def from_rows(self, rows: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Rows as a stored weight.

        Args:
            rows: Array of shape (rows, columns).

        Returns:
            Array of the same type, shape `weight_shape`.
        """
        return rows.reshape(self.split_shape).transpose(self.permutation).reshape(self.weight_shape)


def weight_layout(layer: Layer) -> WeightLayout:
    """How the weight of a layer is laid out.

    Convolutions [O, I/g, k...] have their rows along axis 0; transposed ones [I, O/g, k...] have them along axis 1
    within each group; inner products along `layer.output_channel_axis`, all other axes being columns.

    Example:
        >>> weight_layout(Layer("fc", "MatMul", LayerKind.INNER_PRODUCT, "x", 0, 1, "y", "w", 1, (3, 5), 1)).split_shape
        (5, 3)
    """
    shape, axis = layer.weight_shape, layer.output_channel_axis
    if layer.kind is LayerKind.DECONVOLUTION and layer.group > 1:
        inputs, outputs = shape[0] // layer.group, shape[1]
        return WeightLayout(
            layer=layer.name,
            weight_shape=shape,
            split_shape=(layer.group, outputs, inputs, math.prod(shape[2:])),
            num_row_axes=2,
            permutation=(0, 2, 1, 3),
            scale_axis=0 if inputs == outputs == 1 else None,
        )
    others = tuple(other for other in range(len(shape)) if other != axis)
    order = (axis, *others)
    return WeightLayout(
        layer=layer.name,
        weight_shape=shape,
        split_shape=tuple(shape[other] for other in order),
        num_row_axes=1,
        permutation=tuple(order.index(place) for place in range(len(shape))),
        scale_axis=axis,
    )


def to_rows(weight: npt.NDArray[Number], layer: Layer) -> npt.NDArray[Number]:
    """A stored weight, shape `layer.weight_shape`, as rows; see `WeightLayout.to_rows`."""
    return weight_layout(layer).to_rows(weight)


def from_rows(rows: npt.NDArray[Number], layer: Layer) -> npt.NDArray[Number]:
    """Rows as a stored weight, the inverse of `to_rows`; see `WeightLayout.from_rows`."""
    return weight_layout(layer).from_rows(rows)


def num_input_channels(layer: Layer) -> int:
    """How many channels (or features) a layer with weights reads."""
    layout = weight_layout(layer)
    return layer.group * layout.columns // math.prod(_taps(layer))


def to_channels(weight: npt.NDArray[Number], layer: Layer) -> npt.NDArray[Number]:
    """A stored weight, shape `layer.weight_shape`, by channels.

    Returns:
        Array of the same type, shape (groups, outputs per group, inputs per group, taps); channel number
        `group * inputs per group + i` of the input meets the weights `[group, :, i]`, and likewise for outputs.
    """
    layout = weight_layout(layer)
    taps = math.prod(_taps(layer))
    return layout.to_rows(weight).reshape(layer.group, layout.rows // layer.group, layout.columns // taps, taps)


def from_channels(channels: npt.NDArray[Number], layer: Layer) -> npt.NDArray[Number]:
    """A weight by channels as a stored weight, the inverse of `to_channels`."""
    layout = weight_layout(layer)
    return layout.from_rows(channels.reshape(layout.rows, layout.columns))


def _taps(layer: Layer) -> tuple[int, ...]:
    """The spatial axes of a weight; () for an inner product."""
    return layer.weight_shape[2:]
