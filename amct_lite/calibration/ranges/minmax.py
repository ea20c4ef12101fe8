"""minmax: the range of everything seen."""

from collections.abc import Mapping
from typing import Any

from amct_lite.calibration.ranges.parameters import NoParameters, read_parameters
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange

__all__ = ["minmax"]


def minmax(
    snapshot: HistogramSnapshot,
    *,
    num_bits: int = 8,  # noqa: ARG001 - every range algorithm has the same parameters
    with_offset: bool = True,  # noqa: ARG001
    params: Mapping[str, Any] | None = None,
) -> ClipRange:
    """Takes the lowest and the highest value, and 0 between them.

    Args:
        snapshot: What calibration saw.
        num_bits: Not used.
        with_offset: Not used.
        params: There are none.

    Returns:
        The range.

    Raises:
        ParameterError: A parameter is given.

    Example:
        >>> import numpy as np
        >>> from amct_lite.calibration.histogram import Histogram
        >>> histogram = Histogram()
        >>> histogram.update(np.array([0.5, 3.0]))
        >>> minmax(histogram.snapshot())
        ClipRange(low=0.0, high=3.0)
    """
    read_parameters(NoParameters, "minmax", params)
    return ClipRange(min(snapshot.minimum, 0.0), max(snapshot.maximum, 0.0))
