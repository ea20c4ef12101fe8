"""Accuracy of a classifier on labelled data, with a limit on how far it may fall."""

from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import EvaluatorError, ParameterError
from amct_lite.evaluators.data import DataSource, as_data_source, data_digest
from amct_lite.evaluators.model_run import iterate_scores
from amct_lite.evaluators.parameters import checked_batch_num, checked_count, checked_number

__all__ = ["ClassificationEvaluator"]

ROUNDING = 1e-12
"""Lets 0.9 - 0.89 pass a limit of 0.01."""


class ClassificationEvaluator(AutoNuqEvaluatorBase):
    """Top-k accuracy in [0, 1]; satisfied while it falls by at most `max_drop`.

    A sample counts where one of the classes accepted for it is among its k highest scores. Equal scores rank
    by class index, so the metric does not depend on chance.

    Args:
        data: Labelled samples: `ArrayData`, `ImageData`, a source of your own, or the path of an npz file.
        max_drop: The largest loss of accuracy that is accepted, as a share: 0.01 is one point.
        top_k: How many of the highest scores count.
        batch_size: Samples per batch; a model with a fixed batch gets that instead.
        evaluate_batch_num: How many batches to evaluate. None evaluates all of the data (the attribute is
            then the number of samples, as no number of batches is larger).
        output: Name of the output with the scores; None takes the model's first.

    Raises:
        ParameterError: A parameter is out of range, or the data has no labels.

    Example:
        >>> from amct_lite.evaluators.data import ArrayData
        >>> data = ArrayData(np.zeros((4, 2), np.float32), labels=[0, 1, 1, 0])
        >>> evaluator = ClassificationEvaluator(data, max_drop=0.01)
        >>> evaluator.is_satisfied(0.90, 0.89), evaluator.is_satisfied(0.90, 0.88)
        (True, False)
    """

    def __init__(
        self,
        data: DataSource | Any,
        *,
        max_drop: float,
        top_k: int = 1,
        batch_size: int = 32,
        evaluate_batch_num: int | None = None,
        output: str | None = None,
    ) -> None:
        owner = type(self).__name__
        self.data: DataSource = as_data_source(data)
        if self.data.accepted is None:
            raise ParameterError(
                f"The 'data' parameter of {owner} must have labels.",
                remedy="Give labels, or use AgreementEvaluator or DivergenceEvaluator, which need none.",
            )
        self.max_drop = checked_number(owner, "max_drop", max_drop, high=1.0)
        self.top_k = checked_count(owner, "top_k", top_k)
        self.batch_size = checked_count(owner, "batch_size", batch_size)
        self.output = output
        super().__init__(checked_batch_num(owner, evaluate_batch_num, len(self.data)))

    def eval_model(self, model_file: str, weights_file: str | None, batch_num: int) -> float:
        """Return the top-k accuracy over the first `batch_num` batches.

        Args:
            model_file: An ONNX file, or a prototxt.
            weights_file: The caffemodel of a prototxt; None for ONNX.
            batch_num: How many batches; the data's end comes first where it has fewer.

        Returns:
            The share of samples that are right, in [0, 1].

        Raises:
            EvaluatorError: The data does not fit the model, or its output does not fit the labels.
        """
        accepted = self.data.accepted
        assert accepted is not None, "checked by the constructor"
        num_right, num_samples = 0, 0
        batches = iterate_scores(
            model_file, weights_file, self.data,
            batch_size=self.batch_size, batch_num=batch_num, output=self.output,
        )  # fmt: skip
        for batch in batches:
            rows = accepted[batch.start : batch.start + len(batch.scores)]
            check_classes(rows, batch.start, batch.scores.shape[1], self.top_k, model_file)
            num_right += count_right(batch.scores, rows, self.top_k)
            num_samples += len(rows)
        return num_right / num_samples

    def fingerprint(self) -> str:
        """Say what the metric depends on: the data, and how it is scored."""
        return f"{super().fingerprint()}, top-{self.top_k}, output {self.output}, data {data_digest(self.data)}"

    def is_satisfied(self, original_metric: float, new_metric: float) -> bool:
        """Say whether accuracy falls by at most `max_drop`.

        Args:
            original_metric: Accuracy of the float model.
            new_metric: Accuracy of the compressed one.

        Returns:
            True where the loss is within the limit.
        """
        return bool(original_metric - new_metric <= self.max_drop + ROUNDING)


def count_right(scores: npt.NDArray[np.float32], accepted: npt.NDArray[np.int64], top_k: int) -> int:
    """Count the samples with an accepted class among the k highest scores.

    Args:
        scores: Shape (samples, classes).
        accepted: Shape (samples, most accepted), filled up with -1.
        top_k: How many scores count.

    Returns:
        The number of samples that are right.

    Example:
        >>> count_right(np.float32([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]), np.array([[2, 1], [1, -1]]), top_k=1)
        1
    """
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return int(np.count_nonzero((highest[:, :, None] == accepted[:, None, :]).any(axis=(1, 2))))


def check_classes(accepted: npt.NDArray[np.int64], start: int, num_classes: int, top_k: int, model_file: str) -> None:
    """Refuse labels that the model has no class for, and a k that no sample could fail."""
    if top_k >= num_classes:
        raise EvaluatorError(
            f"Top-{top_k} accuracy says nothing about {model_file}, which has {num_classes} classes.",
            remedy=f"Set 'top_k' below {num_classes}.",
        )
    outside = np.flatnonzero((accepted >= num_classes).any(axis=1))
    if outside.size:
        sample = int(outside[0])
        raise EvaluatorError(
            f"Sample {start + sample} has the label {int(accepted[sample].max())}, but {model_file} has"
            f" {num_classes} classes, 0 to {num_classes - 1}.",
            remedy="Check that labels are indices of the model's own classes, counted from 0.",
        )
