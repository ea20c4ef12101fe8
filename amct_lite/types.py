"""The vocabulary: the frozen dataclasses and enums that the rooms hand each other."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = [
    "ClipRange",
    "FloatArray",
    "Grid",
    "IntArray",
    "Layer",
    "LayerKind",
    "Technique",
]

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


class LayerKind(StrEnum):
    """What a layer computes, whatever its source format calls it."""

    CONVOLUTION = "Convolution"
    DECONVOLUTION = "Deconvolution"
    INNER_PRODUCT = "InnerProduct"
    AVERAGE_POOL = "AveragePool"
    OPERATOR_INPUT = "OperatorInput"


class Technique(StrEnum):
    """A way to quantize a layer; a target says which layers each may touch."""

    UNIFORM = "uniform"
    NUQ = "nuq"
    CODEBOOK = "codebook"


@dataclass(frozen=True)
class Layer:
    """A read-only view of one quantizable operator of a graph.

    Attributes:
        name: The node's unique name; the key in config and record.
        op_type: The operator's name in the source format, for example "Conv" or "Gemm".
        kind: What it computes.
        activation: Name of the tensor that is its data input.
        activation_index: Which input of the node that is.
        channel_axis: Axis of the input channels (or features) in the activation tensor.
        output: Name of its output tensor.
        weight: Name of its weight initializer, None for a layer without weights (AveragePool).
        weight_index: Which input of the node the weight is.
        weight_shape: Shape of the weight as stored; () without weights.
        output_channel_axis: Axis of the output channels in the stored weight.
        bias: Name of its constant bias of shape (out_channels,), None where there is none.
        kernel_shape: Spatial kernel, for example (4, 4); () for an inner product.
        dilations: One number per spatial axis; () for an inner product.
        group: Number of groups; 1 for an inner product.
        transpose: For an inner product, True where the data operand enters transposed or comes second.
            How the weight is stored does not count: Gemm's transB is folded into output_channel_axis.
        axis: For an inner product, the number of leading axes of the input that are kept (1 for a matrix);
            None where the input's rank is unknown or the layer is no inner product.
        tied_with: Names of the other layers that use the same weight tensor.
        operator: Name of its node where it stands for one input of an operator that is no layer; None: `name`.
        blocked: Why no technique can touch the layer, as a sentence; None where nothing stands against it.
    """

    name: str
    op_type: str
    kind: LayerKind
    activation: str
    activation_index: int
    channel_axis: int
    output: str
    weight: str | None = None
    weight_index: int | None = None
    weight_shape: tuple[int, ...] = ()
    output_channel_axis: int = 0
    bias: str | None = None
    kernel_shape: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    transpose: bool = False
    axis: int | None = None
    tied_with: tuple[str, ...] = ()
    operator: str | None = None
    blocked: str | None = None

    @property
    def node_name(self) -> str:
        """Name of its node."""
        return self.operator if self.operator is not None else self.name

    @property
    def num_weights(self) -> int:
        """Number of weight values, 0 for a layer without weights."""
        return int(np.prod(self.weight_shape)) if self.weight is not None else 0


@dataclass(frozen=True)
class ClipRange:
    """The interval of real values that a quantized tensor can represent, low <= 0 <= high."""

    low: float
    high: float


@dataclass(frozen=True)
class Grid:
    """A uniform quantization grid: q = clip(round(x / scale) + offset), x' = (q - offset) * scale.

    Levels are signed, as in AMCT: q runs from -2**(num_bits - 1) to 2**(num_bits - 1) - 1.

    Attributes:
        scale: Step between levels, exactly representable in float32, > 0.
        offset: The level that stands for 0, within the range of q.
        num_bits: Width of a level.
    """

    scale: float
    offset: int = 0
    num_bits: int = 8

    @property
    def q_min(self) -> int:
        """The lowest level."""
        return -(1 << (self.num_bits - 1))

    @property
    def q_max(self) -> int:
        """The highest level."""
        return (1 << (self.num_bits - 1)) - 1
