"""The user's accuracy test, whichever evaluator class it comes as: a metric of a model, and a verdict."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import EvaluatorError
from amct_lite.export.save import ModelFiles

__all__ = ["AccuracyTest", "NuqTest", "checked_metric"]


class AccuracyTest(Protocol):
    """What a search asks of an evaluator. Workers in other processes get it pickled."""

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

    evaluator: AutoNuqEvaluatorBase

    def calibrate(self, files: ModelFiles, batch_num: int) -> None:
        """Run a calibration model."""
        weights = None if files.weights is None else str(files.weights)
        self.evaluator.eval_model(str(files.model), weights, batch_num)

    def measure(self, files: ModelFiles) -> float:
        """See `AccuracyTest`."""
        weights = None if files.weights is None else str(files.weights)
        metric = self.evaluator.eval_model(str(files.model), weights, self.evaluator.evaluate_batch_num)
        return checked_metric(metric, "eval_model")

    def accepts(self, original_metric: float, metric: float) -> bool:
        """See `AccuracyTest`."""
        return bool(self.evaluator.is_satisfied(original_metric, metric))

    def fingerprint(self) -> str:
        """See `AccuracyTest`."""
        return self.evaluator.fingerprint()


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
