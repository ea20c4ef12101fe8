"""Which layers of a network profit from compressed weights on a chip, without a compiler."""

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from amct_lite.graph.model import Model
from amct_lite.quantize.weight_traffic import (
    Soc,
    WeightTraffic,
    convolution_traffic,
    find_soc,
    matrix_traffic,
)
from amct_lite.types import Layer, LayerKind

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Candidate", "Candidates", "find_candidates"]


@dataclass(frozen=True)
class Candidate:
    """One layer with weights.

    Attributes:
        layer: Its name.
        type: Its operator, in the words of the model's format.
        weights: How many it has.
        output_size: Height and width of its output; () where it has none or they are not known.
        traffic: What the compiler's rule says of it.
    """

    layer: str
    type: str
    weights: int
    output_size: tuple[int, ...]
    traffic: WeightTraffic

    @property
    def flagged(self) -> bool:
        """Whether compressed weights would speed it up."""
        return self.traffic.flagged


@dataclass(frozen=True)
class Candidates:
    """The layers with weights of a network, in graph order; `print` it.

    Attributes:
        soc: The chip.
        layers: Each with the rule's verdict.
    """

    soc: str
    layers: tuple[Candidate, ...]

    @property
    def flags(self) -> dict[str, bool]:
        """Layer name -> whether it profits."""
        return {candidate.layer: candidate.flagged for candidate in self.layers}

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that profit."""
        return tuple(candidate.layer for candidate in self.layers if candidate.flagged)

    def table(self) -> "Table":
        """The layers as a table of rich."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"Weight compression on {self.soc}: {len(self.names)} of {len(self.layers)} layers profit")
        for heading in ("layer", "type", "weights", "output", "profits", "why"):
            table.add_column(heading, justify="right" if heading == "weights" else "left", overflow="fold")
        for one in self.layers:
            size = " x ".join(map(str, one.output_size)) or "-"
            cells = (one.layer, one.type, str(one.weights), size, "yes" if one.flagged else "no", one.traffic.reason)
            # Names come from the model: "[conv]" is no markup.
            table.add_row(*map(Text, cells))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=140, color_system=None).print(self.table())
        return text.getvalue().rstrip("\n")


def find_candidates(model: Model, soc: str) -> Candidates:
    """Hold the compiler's rule against every layer with weights.

    Args:
        model: The float network.
        soc: A chip of `SOCS`.

    Raises:
        ParameterError: Nothing is known of the chip.
    """
    chip = find_soc(soc)
    # The sizes of images alone count, so a batch size left open does no harm: ATC fixes it.
    sizes = {str(node.outputs[0].name): _spatial_size(node.outputs[0]) for node in model.ir.graph if node.outputs}
    layers = [layer for layer in model.layers if layer.weight is not None]
    return Candidates(chip.name, tuple(_candidate(layer, sizes.get(layer.output, ()), chip) for layer in layers))


def _spatial_size(value: object) -> tuple[int | None, ...]:
    shape = getattr(value, "shape", None)
    return tuple(size if isinstance(size, int) else None for size in list(shape)[2:]) if shape is not None else ()


def _candidate(layer: Layer, size: tuple[int | None, ...], soc: Soc) -> Candidate:
    known = tuple(part for part in size if part is not None)
    output_size = known if layer.kernel_shape and len(known) == len(layer.kernel_shape) else ()
    return Candidate(layer.name, layer.op_type, layer.num_weights, output_size, _traffic(layer, output_size, soc))


def _traffic(layer: Layer, output_size: tuple[int, ...], soc: Soc) -> WeightTraffic:
    if layer.kind is LayerKind.INNER_PRODUCT:
        return _inner_product(layer)
    if len(layer.weight_shape) != 4:
        return WeightTraffic(False, f"the compiler compresses no weights of rank {len(layer.weight_shape)}")
    outputs_of_group, inputs_of_group = layer.weight_shape[:2]
    if layer.kind is LayerKind.DECONVOLUTION:
        outputs_of_group, inputs_of_group = inputs_of_group * layer.group, outputs_of_group // layer.group
    if layer.group > 1 and inputs_of_group == 1:
        return WeightTraffic(False, "the compiler compresses no weights of a depthwise convolution")
    if not output_size:
        return WeightTraffic(False, "the size of its output is dynamic or not known; the compiler needs fixed ones")
    return convolution_traffic(layer.kernel_shape, inputs_of_group, outputs_of_group, output_size, soc)


def _inner_product(layer: Layer) -> WeightTraffic:
    # Caffe's becomes FullyConnection, Gemm and MatMul of a matrix MatMulV2, any other MatMul BatchMatMulV2.
    if layer.op_type == "InnerProduct":
        return WeightTraffic(True, "a fully connected layer reads each weight once, so it always profits")
    if layer.axis != 1:
        return WeightTraffic(False, "the compiler compresses no weights of a product of more than two axes")
    return matrix_traffic(layer.num_weights)
