"""`InferenceSession`: onnxruntime's interface over a model file; a calibration model's runs feed its observers."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.calibration.feeds import input_specs, to_feed
from amct_lite.calibration.modified_model import CalibrationTask, read_task
from amct_lite.calibration.statistics import Statistics, save_statistics
from amct_lite.calibration.sweep import observe_run
from amct_lite.errors import CalibrationError, ModelError
from amct_lite.files.record import write_record
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.planned_graph import open_graph

__all__ = ["InferenceSession"]


class InferenceSession:
    """Runs an ONNX file on ONNX Runtime, with the methods of `onnxruntime.InferenceSession` that evaluations use.

    For a calibration model (written by `quantize_model`) each `run` is also a calibration batch: after `batch_num`
    of them the record is written, and further runs only compute.

    Example:
        >>> session = InferenceSession("modified.onnx")  # doctest: +SKIP
        >>> logits = session.run(None, {"image": batch})[0]  # doctest: +SKIP
    """

    def __init__(
        self,
        model_file: str | PathLike[str],
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
        **options: Any,
    ) -> None:
        """Open a model.

        Args:
            model_file: An ONNX file.
            sess_options: onnxruntime.SessionOptions, for example with a custom-operator library.
            providers: Execution providers; the CPU's when None.
            **options: Passed on to onnxruntime.InferenceSession.

        Raises:
            ModelError: ONNX Runtime cannot load the file.
        """
        import onnxruntime

        self._path = Path(model_file).resolve()
        if not self._path.is_file():
            raise ModelError(f"There is no model at {model_file}.", remedy="Check the path.")
        try:
            self._session = onnxruntime.InferenceSession(
                str(self._path), sess_options, providers or ["CPUExecutionProvider"], **options
            )
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            raise ModelError(f"ONNX Runtime cannot load {model_file}: {error}") from error
        self._task = read_task(self._session.get_modelmeta().custom_metadata_map, self._path)
        self._statistics = None if self._task is None else Statistics(self._task.tensors)
        self._failure: CalibrationError | None = None

    def get_inputs(self) -> list[Any]:
        """The model's inputs, with name, type and shape each."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        """The model's outputs; those that a calibration model has for its observers are left out."""
        outputs = list(self._session.get_outputs())
        return outputs if self._task is None else [item for item in outputs if item.name in self._task.outputs]

    def get_providers(self) -> list[str]:
        """The execution providers in use."""
        return list(self._session.get_providers())

    def get_modelmeta(self) -> Any:
        """Onnxruntime's ModelMetadata."""
        return self._session.get_modelmeta()

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Compute outputs for one batch.

        Args:
            output_names: Which outputs; all of the network's own when None.
            input_feed: Input name -> array.
            run_options: onnxruntime.RunOptions.

        Returns:
            One array for each name.

        Raises:
            CalibrationError: The batch does not fit a calibration model, or has NaN or infinite activations.
        """
        wanted = list(output_names) if output_names else [item.name for item in self.get_outputs()]
        if self._task is None or self._statistics is None or self._statistics.batches >= self._task.batch_num:
            return list(self._session.run(wanted, dict(input_feed), run_options))
        feed = to_feed(input_feed, input_specs(self._session), self._statistics.batches + 1)
        given = {item.name for item in self._session.get_inputs()}
        produced = [name for name in self._task.tensors if name not in given]
        if self._failure is not None:
            raise CalibrationError(
                "An earlier batch of this calibration failed, so some of its tensors were observed and others not.",
                remedy="Open the calibration model again and give it batches that are sound.",
            ) from self._failure
        try:
            results = observe_run(self._session, feed, produced, wanted, self._statistics, run_options)
        except CalibrationError as error:
            self._failure = error
            raise
        if self._statistics.batches == self._task.batch_num:
            _finish(self._task, self._statistics)
        return results


def _finish(task: CalibrationTask, statistics: Statistics) -> None:
    """Write what the calibration model was made for."""
    if task.statistics_file is not None:
        save_statistics(statistics, task.statistics_file, {"model": task.model_digest})
    if task.record_file is not None:
        planned = open_graph(task.config_file, task.model_file)
        if planned.model.digest != task.model_digest:
            raise CalibrationError(
                f"The float model {task.model_file} has changed since the calibration model was written.",
                remedy="Run quantize_model again.",
            )
        write_record(make_records(planned.model, planned.plans, statistics), task.record_file)
