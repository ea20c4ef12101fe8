"""The user's accuracy test, whichever evaluator class it comes as: a metric of a model, and a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from amct_lite.auto_calibration import AutoCalibrationEvaluatorBase
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import EvaluatorError
from amct_lite.export.save import ModelFiles

__all__ = ["AccuracyTest", "CalibrationTest", "NuqTest", "checked_metric", "require_methods"]


class AccuracyTest(Protocol):
    """What a search asks of an evaluator. Workers in other processes get it pickled.

    Attributes:
        verdict_method: The evaluator's own name of `accepts`, for messages.
        calibrating_method: Its name of `calibrate`.
    """

    verdict_method: ClassVar[str]
    calibrating_method: ClassVar[str]

    def calibrate(self, files: ModelFiles, batch_num: int) -> None:
        """Run a calibration model over some batches, in the user's code."""
        ...

    def measure(self, files: ModelFiles) -> float:
        """The metric of a model on disk; exceptions of the user's code pass through."""
        ...

    def accepts(self, original_metric: float, metric: float) -> bool:
        """Whether a model with this metric is good enough."""
        ...

    def fingerprint(self) -> str:
        """What the metric depends on beside the model."""
        ...


@dataclass(frozen=True)
class NuqTest:
    """An `AutoNuqEvaluatorBase` as an `AccuracyTest`."""

    verdict_method: ClassVar[str] = "is_satisfied"
    calibrating_method: ClassVar[str] = "eval_model"
    evaluator: AutoNuqEvaluatorBase

    def calibrate(self, files: ModelFiles, batch_num: int) -> None:
        """See `AccuracyTest`."""
        self._eval_model(files, batch_num)

    def measure(self, files: ModelFiles) -> float:
        """See `AccuracyTest`."""
        return checked_metric(self._eval_model(files, self.evaluator.evaluate_batch_num), "eval_model")

    def _eval_model(self, files: ModelFiles, batch_num: int) -> Any:
        weights = None if files.weights is None else str(files.weights)
        return self.evaluator.eval_model(str(files.model), weights, batch_num)

    def accepts(self, original_metric: float, metric: float) -> bool:
        """See `AccuracyTest`."""
        return bool(self.evaluator.is_satisfied(original_metric, metric))

    def fingerprint(self) -> str:
        """See `AccuracyTest`."""
        return self.evaluator.fingerprint()


@dataclass(frozen=True)
class CalibrationTest:
    """An `AutoCalibrationEvaluatorBase` as an `AccuracyTest`."""

    verdict_method: ClassVar[str] = "metric_eval"
    calibrating_method: ClassVar[str] = "calibration"
    evaluator: AutoCalibrationEvaluatorBase

    def calibrate(self, files: ModelFiles, batch_num: int) -> None:
        """See `AccuracyTest`; the user's method knows its number of batches itself."""
        del batch_num
        self.evaluator.calibration(*_given(files))

    def measure(self, files: ModelFiles) -> float:
        """See `AccuracyTest`."""
        return checked_metric(self.evaluator.evaluate(*_given(files)), "evaluate")

    def accepts(self, original_metric: float, metric: float) -> bool:
        """See `AccuracyTest`."""
        verdict = self.evaluator.metric_eval(original_metric, metric)
        # A tuple is true whatever it holds: only its first part is the verdict.
        satisfied = verdict[0] if isinstance(verdict, tuple | list) and len(verdict) == 2 else verdict
        if not isinstance(satisfied, bool | np.bool_):
            raise EvaluatorError(
                f"metric_eval must return (satisfied, loss), a bool and a number. Got {verdict!r} instead.",
                remedy="For example: loss = original_metric - new_metric; return loss < 0.01, loss.",
            )
        return bool(satisfied)

    def fingerprint(self) -> str:
        """See `AccuracyTest`."""
        return self.evaluator.fingerprint()


def _given(files: ModelFiles) -> tuple[str, ...]:
    """The arguments of AMCT's methods: the model's file, and for a Caffe network its weights."""
    return (str(files.model),) if files.weights is None else (str(files.model), str(files.weights))


def require_methods(evaluator: Any, methods: Sequence[str], *, where: str, base: str) -> None:
    """Refuse what is no evaluator, before anything is computed.

    Args:
        evaluator: What the user gave.
        methods: The methods that it must have.
        where: The parameter it was given as, for messages.
        base: The class to subclass, for messages.

    Raises:
        EvaluatorError: It lacks a method, or is the class instead of an object.
    """
    for method in methods:
        if not callable(getattr(evaluator, method, None)):
            raise EvaluatorError(
                f"The {where} must have the method {method}. Got {evaluator!r} instead.",
                remedy=f"Subclass {base} and give an object of it, not the class.",
            )
    if isinstance(evaluator, type):
        raise EvaluatorError(
            f"The {where} must be an object. Got the class {evaluator.__name__} instead.",
            remedy=f"Give {evaluator.__name__}(...).",
        )


def checked_metric(metric: Any, method: str) -> float:
    """The number that an evaluator's method returned.

    Raises:
        EvaluatorError: It is not one number.
    """
    try:
        value = float(metric)  # numpy arrays and torch tensors of one element convert too
    except (TypeError, ValueError, RuntimeError) as error:
        raise EvaluatorError(
            f"{method} must return one number. Got {metric!r} instead.",
            remedy="Return a float, for example the top-1 accuracy.",
        ) from error
    if math.isnan(value):
        raise EvaluatorError(
            f"{method} returned nan, which no test can compare.",
            remedy="Return a finite number; for a model that gives no result return the worst value.",
        )
    return value
