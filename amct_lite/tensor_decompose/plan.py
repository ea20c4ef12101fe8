"""Which convolutions of a network are split, and into what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from amct_lite.graph.model import Model
from amct_lite.tensor_decompose.low_rank import Factors, decompose_filter
from amct_lite.types import Layer, LayerKind

__all__ = ["SplitConvolution", "Window", "plan_decomposition"]


@dataclass(frozen=True)
class Window:
    """Where a 2-D filter is put; a pair is (height, width).

    Attributes:
        strides: Steps.
        dilations: Distances between the filter's elements.
        pads: (top, left, bottom, right).
        auto_pad: ONNX's automatic padding; "NOTSET" where `pads` count.
    """

    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    auto_pad: str

    def vertical(self) -> "Window":
        """For the kh x 1 filter: the height's numbers."""
        return Window((self.strides[0], 1), (self.dilations[0], 1), (self.pads[0], 0, self.pads[2], 0), self.auto_pad)

    def horizontal(self) -> "Window":
        """For the 1 x kw filter: the width's numbers."""
        return Window((1, self.strides[1]), (1, self.dilations[1]), (0, self.pads[1], 0, self.pads[3]), self.auto_pad)


@dataclass(frozen=True)
class SplitConvolution:
    """A convolution and the two that take its place.

    Attributes:
        layer: The convolution.
        window: Where its filter is put.
        factors: The two filters.
    """

    layer: Layer
    window: Window
    factors: Factors

    @property
    def names(self) -> tuple[str, str]:
        """AMCT's names of the two."""
        return f"{self.layer.name}_0", f"{self.layer.name}_1"

    @property
    def num_weights(self) -> int:
        """Weights of the two filters."""
        return int(self.factors.vertical.size + self.factors.horizontal.size)

    @property
    def products_share(self) -> float:
        """Multiply-adds of the two / of the one, for wide inputs."""
        vertical = self.factors.vertical.size * self.window.strides[1]
        return float(vertical + self.factors.horizontal.size) / self.layer.num_weights


def plan_decomposition(model: Model, kept_energy: float) -> Iterator[SplitConvolution]:
    """Look at each convolution: 2-D, of one group, with a kernel of more than one row and column, its weight its own.

    Args:
        model: The float network, nothing folded.
        kept_energy: In (0, 1]; see `decompose_filter`.

    Yields:
        Those for which the two are cheaper, in graph order.
    """
    nodes = {node.name: node for node in model.ir.graph}
    for layer in model.layers:
        if not _may_be_split(layer):
            continue
        window = _window(nodes[layer.node_name])
        factors = decompose_filter(model.weight(str(layer.weight)), kept_energy, stride=window.strides[1])
        if factors is not None:
            yield SplitConvolution(layer, window, factors)


def _may_be_split(layer: Layer) -> bool:
    return (
        layer.kind is LayerKind.CONVOLUTION
        and layer.blocked is None
        and layer.group == 1
        and not layer.tied_with
        and len(layer.kernel_shape) == 2
        and min(layer.kernel_shape) > 1
    )


def _window(node: ir.Node) -> Window:
    attributes = node.attributes
    pads = attributes.get_ints("pads", (0,) * 4)
    return Window(
        strides=_pair(attributes.get_ints("strides", (1, 1))),
        dilations=_pair(attributes.get_ints("dilations", (1, 1))),
        pads=(*_pair(pads[:2]), *_pair(pads[2:])),
        auto_pad=attributes.get_string("auto_pad", "NOTSET"),
    )


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    height, width = numbers
    return height, width
