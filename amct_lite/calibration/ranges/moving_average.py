"""moving_average: exponential moving averages of each batch's lowest and highest value.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", arXiv 1712.05877, section 3.1. It is the one algorithm whose result depends on how the data is cut into
batches, and on their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amct_lite.calibration.ranges.parameters import check_number, read_parameters
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange

__all__ = ["MovingAverageParameters", "moving_average"]


@dataclass(frozen=True)
class MovingAverageParameters:
    """The parameter of moving_average.

    Attributes:
        averaging_constant: Weight of a new batch against all before it, in (0, 1]. Training takes 0.01 or less over
            thousands of batches; a calibration has tens.
    """

    averaging_constant: float = 0.1

    def __post_init__(self) -> None:
        check_number("moving_average", "averaging_constant", self.averaging_constant, 0.0, 1.0)


def moving_average(
    snapshot: HistogramSnapshot,
    *,
    num_bits: int = 8,  # noqa: ARG001 - every range algorithm has the same parameters
    with_offset: bool = True,  # noqa: ARG001
    params: Mapping[str, Any] | None = None,
) -> ClipRange:
    """Averages the batches' ranges.

    Args:
        snapshot: What calibration saw; without ranges of batches it counts as one batch.
        num_bits: Not used.
        with_offset: Not used.
        params: Any of the fields of MovingAverageParameters.

    Returns:
        The range, with 0 in it.

    Raises:
        ParameterError: A parameter is unknown or out of its range.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> from amct_lite.calibration.histogram import Histogram
        >>> seen = replace(Histogram().snapshot(), batch_ranges=np.array([[-1.0, 4.0], [-2.0, 8.0]]))
        >>> moving_average(seen, params={"averaging_constant": 0.5})
        ClipRange(low=-1.5, high=6.0)
    """
    weight = read_parameters(MovingAverageParameters, "moving_average", params).averaging_constant
    pairs = [(float(low), float(high)) for low, high in snapshot.batch_ranges]
    low, high = pairs[0] if pairs else (snapshot.minimum, snapshot.maximum)
    for batch_low, batch_high in pairs[1:]:
        low += weight * (batch_low - low)
        high += weight * (batch_high - high)
    return ClipRange(min(low, 0.0), max(high, 0.0))
