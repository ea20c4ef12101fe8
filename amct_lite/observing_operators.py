"""`AMCT_SO`: session options with which plain `onnxruntime.InferenceSession` calibrates, as in AMCT.

A calibration model has a node for each tensor to be observed. The operators registered here, in Python through
onnxruntime-extensions, take these tensors in; each run of the model is a batch, and after the last one the record is
written. A session of such a model without these options only computes.
"""

import logging
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.modified_model import CalibrationTask, read_task
from amct_lite.calibration.observer_nodes import DOMAIN, OBSERVED_TYPES, operator_name
from amct_lite.errors import AmctError, CalibrationError, OptionalDependencyError
from amct_lite.running_calibration import RunningCalibration

__all__ = ["AMCT_SO", "calibration_failure"]

AMCT_SO: Any

_logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    """`AMCT_SO` is made when it is first asked for (PEP 562): only then onnxruntime-extensions is needed."""
    if name != "AMCT_SO":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _calibrating_session_options()


@cache
def _calibrating_session_options() -> Any:
    """Onnxruntime.SessionOptions with the observing operators, one object for the whole process.

    Raises:
        OptionalDependencyError: onnxruntime-extensions is not installed.
    """
    try:
        import onnxruntime_extensions
    except ImportError as error:
        raise OptionalDependencyError(
            "AMCT_SO calibrates inside onnxruntime.InferenceSession with operators in Python, which need"
            " onnxruntime-extensions.",
            remedy="Install the extra: pip install 'amct-lite[amct-so]'. Or open the calibration model with"
            " amct_lite.InferenceSession, which has onnxruntime's methods and needs nothing.",
        ) from error
    import onnxruntime  # as late as its extensions: `import amct_lite` stays fast

    _register_operators()
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    return options


@cache
def _register_operators() -> None:
    from onnxruntime_extensions import PyOp, onnx_op

    for name in OBSERVED_TYPES.values():
        onnx_op(
            op_type=f"{DOMAIN}::{operator_name(name)}",
            inputs=[getattr(PyOp, f"dt_{name}")],
            outputs=[PyOp.dt_int64],
            attrs={"tensor": PyOp.dt_string, "calibration_model": PyOp.dt_string},
        )(_observe)


def calibration_failure(calibration_model: Path) -> AmctError | None:
    """Why the calibration of a model through `AMCT_SO` in this process failed; None where it did not."""
    return _failures.get(str(calibration_model.resolve()))


class _Calibration:
    """One calibration model in this process.

    Attributes:
        written: When its file was written: written again, it calibrates again.
    """

    def __init__(self, written: int, task: CalibrationTask) -> None:
        self.written = written
        self._running = RunningCalibration(task)
        self._awaited = {*task.tensors, *task.inputs}
        self._batch: dict[str, npt.NDArray[Any]] = {}

    def take(self, tensor: str, values: npt.NDArray[Any]) -> None:
        """Take in one tensor of a batch; with the last one the batch is observed."""
        if self._running.done:
            return
        if tensor in self._batch:  # the run before ended in the middle
            self._batch.clear()
        self._batch[tensor] = values
        if not self._awaited <= self._batch.keys():
            return
        batch, self._batch = self._batch, {}
        self._running.observe({name: batch[name] for name in self._running.task.inputs}, batch)


_calibrations: dict[str, _Calibration] = {}
_failures: dict[str, AmctError] = {}
_lock = threading.Lock()
_NO_COUNT = np.zeros(1, np.int64)


def _observe(values: npt.NDArray[Any], tensor: str = "", calibration_model: str = "") -> npt.NDArray[np.int64]:
    """The operator: no exception may leave it, for onnxruntime would end the process."""
    with _lock:
        try:
            calibration = _find(calibration_model)
            if calibration_model not in _failures:
                calibration.take(tensor, values)
        except Exception as error:
            _remember(calibration_model, error)
    return _NO_COUNT


def _find(calibration_model: str) -> _Calibration:
    if not Path(calibration_model).is_file():
        raise CalibrationError(
            f"The calibration model is no more at {calibration_model}, where it was written.",
            remedy="Run quantize_model again, or open it with amct_lite.InferenceSession.",
        )
    written = Path(calibration_model).stat().st_mtime_ns
    known = _calibrations.get(calibration_model)
    if known is None or known.written != written:
        task = read_task(Path(calibration_model))
        if task is None:
            raise CalibrationError(f"There is no calibration model at {calibration_model} any more.")
        known = _calibrations[calibration_model] = _Calibration(written, task)
        _failures.pop(calibration_model, None)
    return known


def _remember(calibration_model: str, error: Exception) -> None:
    if calibration_model in _failures:
        return
    failure = error if isinstance(error, AmctError) else CalibrationError(f"{type(error).__name__}: {error}")
    _failures[calibration_model] = failure
    _logger.error("Do calibration failed, and goes on without observing: %s", failure)
