"""Every error that amct_lite raises on purpose: which layer, what is wrong, and what to do about it."""

from __future__ import annotations  # old Pythons import this on the way to caffe_layers

__all__ = [
    "AmctError",
    "CalibrationError",
    "ConfigError",
    "EvaluatorError",
    "ExportError",
    "FileError",
    "ModelError",
    "OptionalDependencyError",
    "ParameterError",
    "RecordError",
    "SearchError",
    "TrainingError",
    "UnsupportedVerbError",
]


class AmctError(Exception):
    """The root of all errors raised on purpose.

    Attributes:
        cause: What is wrong, in a sentence.
        layer: The layer it concerns, or None.
        remedy: What the user can do, in a sentence, or None.
    """

    def __init__(self, cause: str, *, layer: str | None = None, remedy: str | None = None) -> None:
        self.cause = cause
        self.layer = layer
        self.remedy = remedy
        parts = [f"Layer {layer!r}: {cause}" if layer else cause]
        if remedy:
            parts.append(remedy)
        super().__init__(" ".join(parts))


class ParameterError(AmctError, ValueError):
    """A parameter of a public function is out of its range or of the wrong kind."""


class FileError(AmctError, OSError):
    """A file cannot be read or written."""

    def __str__(self) -> str:
        # OSError builds its own text from its arguments; ours is the sentence that AmctError made.
        return str(self.args[0])


class ModelError(AmctError, ValueError):
    """A model cannot be loaded, is not valid, or has something that is not supported."""


class ConfigError(AmctError, ValueError):
    """A config file is not valid, or asks for what the model or the target does not allow."""


class RecordError(AmctError, ValueError):
    """A scale/offset record is not valid or does not fit the model."""


class CalibrationError(AmctError, ValueError):
    """The calibration data does not fit the model, or calibration cannot be finished."""


class ExportError(AmctError, ValueError):
    """A quantized model cannot be written in the form asked for."""


class EvaluatorError(AmctError, TypeError):
    """An evaluator does not do what its base class asks of it."""


class SearchError(AmctError, RuntimeError):
    """A search cannot start or go on, for example because its journal belongs to another search."""


class TrainingError(AmctError, RuntimeError):
    """Training cannot start or go on."""


class OptionalDependencyError(AmctError, ImportError):
    """A part of amct_lite needs a package that is not installed."""


class UnsupportedVerbError(AmctError, NotImplementedError):
    """A function of AMCT's that amct_lite does not have."""
