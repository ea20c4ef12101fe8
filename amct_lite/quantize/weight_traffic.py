"""Where a chip waits for weights: the rule by which Ascend's compiler chooses the weights that it compresses.

ATC marks an operator with `_fe_weight_compress` where its weights take about as long to come from memory as its
products take to compute; NUQ helps there, because it makes weights that a lossless compressor shrinks. The rule and the
chips' figures are public in the compiler's source (github hicann/ge, `SetCompressWeightAttr` in op_compiler.cc, and
the platform_config/*.ini of its tests); this is written from the formulas:

    cube_cycles   = ceil(out_height * out_width / 16) * ceil(kernel * channels_in / 32) * ceil(channels_out / 16)
    weight_cycles = weights / ddr_rate
    convolution:             weights > 262144 and weight_cycles / cube_cycles >= 0.8
    matrix product:          weights > 262144 (an int8 weight is a byte)
    fully connected (Caffe): always
"""

from dataclasses import dataclass
from math import ceil, prod

from amct_lite.errors import ParameterError

__all__ = ["SOCS", "Soc", "WeightTraffic", "convolution_traffic", "find_soc", "matrix_traffic"]

SMALLEST_WEIGHTS = 262144
"""Up to as many weights an operator is never flagged."""

SMALLEST_RATIO = 0.8
"""Of the cycles for a convolution's weights to those of its products."""


@dataclass(frozen=True)
class Soc:
    """What the rule takes from a chip.

    Attributes:
        name: As in ATC's `--soc_version`.
        ddr_rate: Bytes of weights that come from memory in one cycle.
        cube_m: Output positions that the matrix unit multiplies at once.
        cube_k: int8 products that it sums up at once.
        cube_n: Output channels that it computes at once.
    """

    name: str
    ddr_rate: int
    cube_m: int = 16
    cube_k: int = 32
    cube_n: int = 16


SOCS = {
    soc.name: soc
    for soc in (
        Soc("Ascend310", 67),
        Soc("Ascend310P", 17),
        Soc("Ascend310B", 17),
        Soc("Ascend910", 32),
        Soc("Ascend910A", 32),
        Soc("Ascend910B", 32),
    )
}


@dataclass(frozen=True)
class WeightTraffic:
    """What the rule says of one operator.

    Attributes:
        flagged: Whether the compiler would compress its weights.
        reason: Why, or why not, in words and figures.
        cube_cycles: Cycles that its products take; None where the rule does not ask.
        weight_cycles: Cycles that its weights take to arrive; None where the rule does not ask.
    """

    flagged: bool
    reason: str
    cube_cycles: int | None = None
    weight_cycles: float | None = None

    @property
    def ratio(self) -> float | None:
        """Cycles for weights / cycles for products; None where the rule does not ask."""
        if self.cube_cycles is None or self.weight_cycles is None:
            return None
        return self.weight_cycles / self.cube_cycles


def find_soc(name: str) -> Soc:
    """A chip by its name, with or without the digits that ATC's names end in: Ascend310P3 is an Ascend310P.

    Raises:
        ParameterError: Nothing is known of it.

    Example:
        >>> find_soc("Ascend310P3").ddr_rate
        17
    """
    soc = SOCS.get(name) or SOCS.get(name.rstrip("0123456789"))
    if soc is None:
        raise ParameterError(
            f"The 'soc' parameter must be one of {', '.join(SOCS)}. Got {name!r} instead.",
            remedy="Of other chips the rule's figures are not public.",
        )
    return soc


def convolution_traffic(
    kernel_shape: tuple[int, ...], channels_in: int, channels_out: int, output_size: tuple[int, ...], soc: Soc
) -> WeightTraffic:
    """The rule for a convolution, or a transposed one.

    Args:
        kernel_shape: Height and width of the kernel.
        channels_in: Input channels of one group.
        channels_out: Output channels.
        output_size: Height and width of the output.
        soc: The chip.
    """
    summed = prod(kernel_shape) * channels_in
    weights = summed * channels_out
    if weights <= SMALLEST_WEIGHTS:
        return WeightTraffic(False, _too_few(weights))
    positions = prod(output_size)
    cube = ceil(positions / soc.cube_m) * ceil(summed / soc.cube_k) * ceil(channels_out / soc.cube_n)
    arriving = weights / soc.ddr_rate
    ratio = arriving / cube
    flagged = ratio >= SMALLEST_RATIO
    size = " x ".join(map(str, output_size))
    return WeightTraffic(
        flagged,
        f"{weights} weights take {arriving:.0f} cycles to arrive, {size} outputs {cube} to compute:"
        f" ratio {ratio:.2f}, {'at least' if flagged else 'below'} {SMALLEST_RATIO}",
        cube,
        arriving,
    )


def matrix_traffic(weights: int) -> WeightTraffic:
    """The rule for a matrix product with a constant operand.

    Args:
        weights: Their number.
    """
    if weights <= SMALLEST_WEIGHTS:
        return WeightTraffic(False, _too_few(weights))
    return WeightTraffic(True, f"a matrix product of {weights} weights, more than {SMALLEST_WEIGHTS}")


def _too_few(weights: int) -> str:
    return f"{weights} weights, at most {SMALLEST_WEIGHTS}"
