"""Range algorithms by their name in the config."""

from amct_lite.calibration.ranges.ifmr import ifmr
from amct_lite.calibration.ranges.minmax import minmax
from amct_lite.calibration.ranges.protocol import RangeAlgorithm

__all__ = ["RANGE_ALGORITHMS", "RangeAlgorithm"]

RANGE_ALGORITHMS: dict[str, RangeAlgorithm] = {
    "ifmr": ifmr,
    "minmax": minmax,
}
