"""Range algorithms by their name in the config."""

from amct_lite.calibration.ranges.entropy import entropy
from amct_lite.calibration.ranges.hfmg import hfmg
from amct_lite.calibration.ranges.ifmr import ifmr
from amct_lite.calibration.ranges.minmax import minmax
from amct_lite.calibration.ranges.moving_average import moving_average
from amct_lite.calibration.ranges.mse import mse
from amct_lite.calibration.ranges.percentile import percentile
from amct_lite.calibration.ranges.protocol import RangeAlgorithm

__all__ = ["RANGE_ALGORITHMS", "RangeAlgorithm"]

RANGE_ALGORITHMS: dict[str, RangeAlgorithm] = {
    "ifmr": ifmr,
    "hfmg": hfmg,
    "minmax": minmax,
    "moving_average": moving_average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
