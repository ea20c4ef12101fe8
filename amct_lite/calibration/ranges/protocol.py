"""What every range algorithm is."""

from collections.abc import Mapping
from typing import Any, Protocol

from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange

__all__ = ["RangeAlgorithm"]


class RangeAlgorithm(Protocol):
    """A pure function from what a tensor held to the interval that its grid shall cover.

    A Protocol rather than a base class: an algorithm keeps no state, so a function is all it needs to be.
    """

    def __call__(
        self, snapshot: HistogramSnapshot, *, num_bits: int, with_offset: bool, params: Mapping[str, Any]
    ) -> ClipRange:
        """Chooses the clip range.

        Args:
            snapshot: What calibration saw.
            num_bits: Width of a level.
            with_offset: Whether the grid may have an offset.
            params: The algorithm's own parameters by their name in the config; those left out have defaults.

        Returns:
            The range, finite, with low <= 0 <= high.

        Raises:
            ParameterError: A parameter is unknown or out of its range.
        """
