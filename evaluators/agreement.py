"""Agreement with the float network: how often the class is the same. Needs no labels."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.evaluators.data import DataSource, as_data_source, data_digest
from amct_lite.evaluators.model_run import iterate_scores
from amct_lite.evaluators.parameters import checked_batch_num, checked_count, checked_number
from amct_lite.evaluators.reference import FloatReference

__all__ = ["AgreementEvaluator"]

ROUNDING = 1e-12
"""Lets a share that is the limit but for rounding pass."""


class AgreementEvaluator(AutoNuqEvaluatorBase):
    """Share of samples with the class that the float network gives; satisfied from `min_agreement` on.

    Args:
        data: Samples: `ArrayData`, `ImageData`, a source of your own, an array, a dict of arrays, or an npz
            file's path.
        float_model_file: The float network, an ONNX file or a prototxt; it runs once over the data.
        float_weights_file: The caffemodel of a prototxt; None for ONNX.
        min_agreement: The smallest share that is accepted, in [0, 1].
        batch_size: Samples per batch; a model with a fixed batch gets that instead.
        evaluate_batch_num: How many batches to evaluate. None evaluates all of the data (the attribute is
            then the number of samples, as no number of batches is larger).
        output: Name of the output with the scores; None takes the model's first.

    Raises:
        ParameterError: A parameter is out of range, or the float model's file is missing.
    """

    def __init__(
        self,
        data: DataSource | Any,
        *,
        float_model_file: str | Path,
        float_weights_file: str | Path | None = None,
        min_agreement: float,
        batch_size: int = 32,
        evaluate_batch_num: int | None = None,
        output: str | None = None,
    ) -> None:
        owner = type(self).__name__
        self.data: DataSource = as_data_source(data)
        self.min_agreement = checked_number(owner, "min_agreement", min_agreement, high=1.0)
        self.batch_size = checked_count(owner, "batch_size", batch_size)
        self.output = output
        self.reference = FloatReference(
            float_model_file,
            self.data,
            highest_class,
            float_weights_file=float_weights_file,
            batch_size=self.batch_size,
            output=output,
        )
        super().__init__(checked_batch_num(owner, evaluate_batch_num, len(self.data)))

    def eval_model(self, model_file: str, weights_file: str | None, batch_num: int) -> float:
        """Return the agreement over the first `batch_num` batches.

        Args:
            model_file: An ONNX file, or a prototxt.
            weights_file: The caffemodel of a prototxt; None for ONNX.
            batch_num: How many batches; the data's end comes first where it has fewer.

        Returns:
            The share of samples with the float network's class, in [0, 1].

        Raises:
            EvaluatorError: The data does not fit the model, or the model is not the float one's kind.
        """
        num_same, num_samples = 0, 0
        batches = iterate_scores(
            model_file, weights_file, self.data,
            batch_size=self.batch_size, batch_num=batch_num, output=self.output,
        )  # fmt: skip
        for batch in batches:
            prepare = max(batch_num, self.evaluate_batch_num)
            wanted = self.reference.rows(batch.start, batch.scores, prepare, model_file)
            num_same += int(np.count_nonzero(highest_class(batch.scores) == wanted))
            num_samples += len(wanted)
        return num_same / num_samples

    def fingerprint(self) -> str:
        """Say what the metric depends on: the data, and how it is scored."""
        return f"{super().fingerprint()}, output {self.output}, data {data_digest(self.data)}"

    def is_satisfied(self, original_metric: float, new_metric: float) -> bool:  # noqa: ARG002 - a fixed limit
        """Say whether the agreement is at least `min_agreement`.

        Args:
            original_metric: The float model's agreement with itself, 1.
            new_metric: The compressed model's.

        Returns:
            True where it is high enough.
        """
        return bool(new_metric >= self.min_agreement - ROUNDING)


def highest_class(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Return the class with the highest score, the first of equals, shape (samples,)."""
    highest: npt.NDArray[np.int32] = scores.argmax(axis=1).astype(np.int32)
    return highest
