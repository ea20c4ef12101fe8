"""Kullback-Leibler divergence from the float network: how far probabilities move. Needs no labels."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import EvaluatorError, ParameterError
from amct_lite.evaluators.data import DataSource, as_data_source, data_digest
from amct_lite.evaluators.model_run import iterate_scores
from amct_lite.evaluators.parameters import checked_batch_num, checked_count, checked_number
from amct_lite.evaluators.reference import FloatReference

__all__ = ["DivergenceEvaluator"]

ROUNDING = 1e-12
"""Lets a value that is the limit but for rounding pass."""

SMALLEST_PROBABILITY = 1e-12
"""Below it probabilities count as equal: their logarithm would be noise, or infinite."""

SUM_TOLERANCE = 1e-3
"""How far from 1 a row of probabilities may sum; half precision over 1000 classes stays within it."""


class DivergenceEvaluator(AutoNuqEvaluatorBase):
    """Mean of KL(float || new) over the samples, in nats; satisfied while it is at most `max_divergence`.

    More sensitive than agreement, so it tells candidates apart on few samples.

    Args:
        data: Samples: `ArrayData`, `ImageData`, a source of your own, an array, a dict of arrays, or an npz
            file's path.
        float_model_file: The float network, an ONNX file or a prototxt; it runs once over the data. Its scores are
            kept: four bytes per sample and class.
        float_weights_file: The caffemodel of a prototxt; None for ONNX.
        max_divergence: The largest mean divergence that is accepted, in nats: 0 is the same network.
        logits: True where the output is logits, False where it is probabilities. None decides by the float
            network's scores: probabilities where all lie in [0, 1] and every row sums to 1 within 1e-3, else
            logits.
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
        max_divergence: float,
        logits: bool | None = None,
        batch_size: int = 32,
        evaluate_batch_num: int | None = None,
        output: str | None = None,
    ) -> None:
        owner = type(self).__name__
        self.data: DataSource = as_data_source(data)
        self.max_divergence = checked_number(owner, "max_divergence", max_divergence)
        self.batch_size = checked_count(owner, "batch_size", batch_size)
        if logits is not None and not isinstance(logits, bool):
            raise ParameterError(
                f"The 'logits' parameter of {owner} must be True, False or None. Got {logits!r} instead."
            )
        self.logits = logits
        self.output = output
        self.reference = FloatReference(
            float_model_file,
            self.data,
            all_scores,
            float_weights_file=float_weights_file,
            batch_size=self.batch_size,
            output=output,
        )
        super().__init__(checked_batch_num(owner, evaluate_batch_num, len(self.data)))

    def eval_model(self, model_file: str, weights_file: str | None, batch_num: int) -> float:
        """Return the mean divergence over the first `batch_num` batches.

        Args:
            model_file: An ONNX file, or a prototxt.
            weights_file: The caffemodel of a prototxt; None for ONNX.
            batch_num: How many batches; the data's end comes first where it has fewer.

        Returns:
            Mean of KL(float || new), nats, >= 0.

        Raises:
            EvaluatorError: The data does not fit the model, or the model is not the float one's kind.
        """
        total, num_samples = 0.0, 0
        batches = iterate_scores(
            model_file, weights_file, self.data,
            batch_size=self.batch_size, batch_num=batch_num, output=self.output,
        )  # fmt: skip
        for batch in batches:
            prepare = max(batch_num, self.evaluate_batch_num)
            wanted = self.reference.rows(batch.start, batch.scores, prepare, model_file)
            logits = self.takes_logits()
            total += float(divergence(wanted, batch.scores, logits=logits).sum())
            num_samples += len(wanted)
        return total / num_samples

    def fingerprint(self) -> str:
        """Say what the metric depends on: the data, and how it is scored."""
        return f"{super().fingerprint()}, output {self.output}, data {data_digest(self.data)}"

    def is_satisfied(self, original_metric: float, new_metric: float) -> bool:
        """Say whether the divergence is at most `max_divergence` above the original's.

        Args:
            original_metric: The float model's divergence from itself, 0.
            new_metric: The compressed model's.

        Returns:
            True where it is low enough.
        """
        return bool(new_metric - original_metric <= self.max_divergence + ROUNDING)

    def takes_logits(self) -> bool:
        """Say whether scores are logits, by the parameter or by the float network's scores.

        Raises:
            EvaluatorError: They were said to be probabilities, and are not.
        """
        if self.logits:
            return True
        scores: npt.NDArray[np.float32] = self.reference.known_rows
        if are_probabilities(scores):
            return False
        if self.logits is False:
            raise EvaluatorError(
                f"The scores of {self.reference.float_model_file} were said to be probabilities, but they lie"
                f" in [{scores.min():.4g}, {scores.max():.4g}] and rows do not all sum to 1.",
                remedy="Set 'logits' to True, or name another output.",
            )
        return True


def all_scores(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the scores as they are, so that logits and probabilities are told apart on all of them."""
    return scores


def are_probabilities(scores: npt.NDArray[np.float32]) -> bool:
    """Say whether all scores lie in [0, 1] and every row sums to 1.

    Args:
        scores: Shape (samples, classes).

    Returns:
        True where they can be taken for probabilities.

    Example:
        >>> are_probabilities(np.float32([[0.25, 0.75]])), are_probabilities(np.float32([[0.25, 0.5]]))
        (True, False)
    """
    sums = scores.sum(axis=1, dtype=np.float64)
    in_range = scores.min() >= 0 and scores.max() <= 1 + SUM_TOLERANCE
    return bool(in_range and np.abs(sums - 1).max() <= SUM_TOLERANCE)


def log_probabilities(scores: npt.NDArray[np.float32], *, logits: bool) -> npt.NDArray[np.float64]:
    """Return the logarithms of normalised probabilities, shape (samples, classes)."""
    logarithms = scores.astype(np.float64)
    if not logits:
        logarithms = np.log(np.maximum(logarithms, SMALLEST_PROBABILITY))
    logarithms -= logarithms.max(axis=1, keepdims=True)
    normalised: npt.NDArray[np.float64] = logarithms - np.log(np.exp(logarithms).sum(axis=1, keepdims=True))
    return normalised


def divergence(
    float_scores: npt.NDArray[np.float32], new_scores: npt.NDArray[np.float32], *, logits: bool
) -> npt.NDArray[np.float64]:
    """Return KL(float || new) of each sample, in nats.

    Args:
        float_scores: Shape (samples, classes).
        new_scores: The same shape.
        logits: Whether both are logits; else they are probabilities.

    Returns:
        Shape (samples,), >= 0.

    Example:
        >>> half, skew = np.float32([[0.5, 0.5]]), np.float32([[0.75, 0.25]])
        >>> divergence(half, skew, logits=False).round(4).tolist()
        [0.1438]
    """
    float_log = log_probabilities(float_scores, logits=logits)
    new_log = log_probabilities(new_scores, logits=logits)
    each: npt.NDArray[np.float64] = (np.exp(float_log) * (float_log - new_log)).sum(axis=1)
    return np.maximum(each, 0.0)  # rounding alone can make it negative
