"""What the float network says about each sample: computed once, kept small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.errors import EvaluatorError, ParameterError
from amct_lite.evaluators.data import DataSource
from amct_lite.evaluators.model_run import iterate_scores

__all__ = ["FloatReference"]


class FloatReference:
    """The float network's answers, one row per sample, computed when first asked for.

    The answers depend on nothing but the constructor's parameters, so it does not matter which model is
    evaluated first, nor whether a search was interrupted.

    Args:
        float_model_file: The float network, an ONNX file or a prototxt.
        data: The samples.
        summarize: Makes a small array, one row per sample, of scores of shape (samples, classes).
        float_weights_file: The caffemodel of a prototxt; None for ONNX.
        batch_size: Samples per batch.
        output: Name of the output with the scores; None takes the first.

    Raises:
        ParameterError: The float model's file is missing.
    """

    def __init__(
        self,
        float_model_file: str | Path,
        data: DataSource,
        summarize: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]],
        *,
        float_weights_file: str | Path | None = None,
        batch_size: int,
        output: str | None,
    ) -> None:
        for name, file in (("float_model_file", float_model_file), ("float_weights_file", float_weights_file)):
            if file is not None and not Path(file).is_file():
                raise ParameterError(f"The {name!r} parameter must be a model's file. There is no file {file}.")
        self.float_model_file = str(float_model_file)
        self.float_weights_file = None if float_weights_file is None else str(float_weights_file)
        self.data = data
        self.summarize = summarize
        self.batch_size = batch_size
        self.output = output
        self.num_classes = 0
        self._rows: npt.NDArray[Any] | None = None

    @property
    def known_rows(self) -> npt.NDArray[Any]:
        """All answers computed so far, one row per sample."""
        return np.empty((0, 0)) if self._rows is None else self._rows

    def rows(self, start: int, scores: npt.NDArray[np.float32], batch_num: int, model_file: str) -> npt.NDArray[Any]:
        """Return the float network's answers for the samples of one batch.

        Args:
            start: Index of the batch's first sample.
            scores: What another model says about them, shape (samples, classes).
            batch_num: How many batches to prepare at least.
            model_file: That other model, for messages.

        Returns:
            The answers, one row per sample of `scores`.

        Raises:
            EvaluatorError: The two models have different numbers of classes.
        """
        stop = start + len(scores)
        if self._rows is None or len(self._rows) < stop:
            self._rows = self._compute(batch_num)
        if scores.shape[1] != self.num_classes:
            raise EvaluatorError(
                f"{model_file} has {scores.shape[1]} classes, but the float model {self.float_model_file} has"
                f" {self.num_classes}.",
                remedy="Give the float version of the same network as 'float_model_file'.",
            )
        return self._rows[start:stop]

    def _compute(self, batch_num: int) -> npt.NDArray[Any]:
        summaries = []
        batches = iterate_scores(
            self.float_model_file, self.float_weights_file, self.data,
            batch_size=self.batch_size, batch_num=batch_num, output=self.output,
        )  # fmt: skip
        for batch in batches:
            self.num_classes = batch.scores.shape[1]
            summaries.append(self.summarize(batch.scores))
        return np.concatenate(summaries)
