"""AMCT's place for the evaluator's base class, the strategy and the sensitivities: see `amct_lite.auto_calibration`."""

from __future__ import annotations  # old Pythons import this on the way to caffe_layers

from amct_lite.auto_calibration import (
    AutoCalibrationEvaluatorBase,
    BinarySearchStrategy,
    CosineSimilaritySensitivity,
    MseSensitivity,
)

__all__ = ["AutoCalibrationEvaluatorBase", "BinarySearchStrategy", "CosineSimilaritySensitivity", "MseSensitivity"]
