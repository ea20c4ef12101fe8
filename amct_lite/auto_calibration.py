"""Accuracy-based auto calibration: the evaluator's base class, AMCT's strategy and sensitivities, and the verb.

`amct_lite.accuracy_based_auto_calibration(...)` and `from amct_lite.common.auto_calibration import ...` both work, as
in AMCT. This module imports nothing heavy, so that a user's evaluator file loads fast.
"""

from __future__ import annotations  # old Pythons import this on the way to caffe_layers

from os import PathLike
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amct_lite.search.result import SearchResult

    StrPath = str | PathLike[str]

__all__ = [
    "AutoCalibrationEvaluatorBase",
    "BinarySearchStrategy",
    "CosineSimilaritySensitivity",
    "MseSensitivity",
    "accuracy_based_auto_calibration",
]


class AutoCalibrationEvaluatorBase:
    """The user's accuracy test. Subclass it and write `calibration`, `evaluate` and `metric_eval`.

    Example:
        >>> class Evaluator(AutoCalibrationEvaluatorBase):
        ...     def calibration(self, model_file):
        ...         pass  # run the model over batch_num batches
        ...     def evaluate(self, model_file):
        ...         return 0.9  # run the model, return one number
        ...     def metric_eval(self, original_metric, new_metric):
        ...         loss = original_metric - new_metric
        ...         return loss < 0.01, loss
        >>> satisfied, loss = Evaluator().metric_eval(0.9, 0.8)
        >>> satisfied
        False
    """

    def __init__(self) -> None:
        pass

    def calibration(self, *args: Any, **kwargs: Any) -> None:
        """Run a calibration model over the config's `batch_num` batches; what it returns is not looked at.

        Define it as `calibration(self, model_file)` for ONNX, `calibration(self, model_file, weights_file)` for Caffe,
        and run the model through `amct_lite.InferenceSession` or `amct_lite.pycaffe`, which observe what it computes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define calibration(model_file[, weights_file]).")

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Run a model on the user's data and return one metric.

        Define it as `evaluate(self, model_file)` for ONNX, as `evaluate(self, model_file, weights_file)` for Caffe.
        """
        raise NotImplementedError(f"{type(self).__name__} must define evaluate(model_file[, weights_file]).")

    def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, float]:
        """Say whether a quantized model is good enough, and what it loses.

        Args:
            original_metric: What `evaluate` returned for the float model.
            new_metric: What it returned for the quantized one.

        Returns:
            Whether it is acceptable, and the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} must define metric_eval(original_metric, new_metric).")

    def fingerprint(self) -> str:
        """Say what the metric depends on beside the model: part of the key under which trials are remembered.

        Override it where the class does not tell, for example with a digest of the data.
        """
        return type(self).__qualname__


class BinarySearchStrategy:
    """AMCT's strategy: the most sensitive layers go back to float, as few as a bisection of their ranking finds."""

    name = "BinarySearch"


class CosineSimilaritySensitivity:
    """AMCT's sensitivity: 0.5 + 0.5 * cosine of a layer's output, quantized alone, and its float output."""

    name = "CosineSimilarity"


class MseSensitivity:
    """The mean squared error of a layer's output where it alone is quantized.

    Attributes:
        do_normalization: Whether it is divided by the mean square of the float output, so that layers compare.
    """

    name = "MSE"

    def __init__(self, do_normalization: bool = False) -> None:
        self.do_normalization = do_normalization


@overload
def accuracy_based_auto_calibration(
    model_file: StrPath,
    model_evaluator: Any,
    config_file: StrPath,
    record_file: StrPath,
    save_dir: StrPath,
    strategy: str | BinarySearchStrategy | None = None,
    sensitivity: str | CosineSimilaritySensitivity | MseSensitivity | None = None,
    *,
    calibration_data: Iterable[Any] | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
) -> SearchResult: ...
@overload
def accuracy_based_auto_calibration(
    model_file: StrPath,
    weights_file: StrPath | None,
    model_evaluator: Any,
    config_file: StrPath,
    record_file: StrPath,
    save_dir: StrPath,
    strategy: str | BinarySearchStrategy | None = None,
    sensitivity: str | CosineSimilaritySensitivity | MseSensitivity | None = None,
    *,
    calibration_data: Iterable[Any] | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
) -> SearchResult: ...
def accuracy_based_auto_calibration(*arguments: Any, **keywords: Any) -> SearchResult:
    """Quantize all that the config enables; where the user's test refuses that, roll layers back to float.

    AMCT's two forms, told apart by the second argument:

        accuracy_based_auto_calibration(model_file, model_evaluator, config_file, record_file, save_dir,
                                        strategy=None, sensitivity=None)                    # ONNX
        accuracy_based_auto_calibration(model_file, weights_file, model_evaluator, config_file, record_file, save_dir,
                                        strategy=None, sensitivity=None)                    # Caffe

    Every trial is journalled in `save_dir`; calling again after an interruption goes on where it stopped. Ctrl-C ends
    the search as the end of its budget does: the best so far is saved and returned, and its `stop` says so.

    Args:
        arguments: See the forms above.
        keywords: The same by name, and the ones below.
        model_file: The float network: an ONNX file, or a prototxt.
        weights_file: The caffemodel of a prototxt.
        model_evaluator: The user's accuracy test, an `AutoCalibrationEvaluatorBase`; an `AutoNuqEvaluatorBase`, such as
            the ready-made ones of `amct_lite.evaluators`, serves as well.
        config_file: A config written by `create_quant_config`, edited or not: what is quantized, and how.
        record_file: Where the record of the result is written.
        save_dir: Folder for everything else: models, final config, ranking, summary, journal.
        strategy: None for ours ("frontier"): the layers to roll back are those by which the error falls most for the
            bytes they add, corrected by every metric seen. "BinarySearch" or `BinarySearchStrategy()`: AMCT's.
            Others: `amct_lite.search.strategies.registry.STRATEGIES`.
        sensitivity: What layers are ranked by, on the first calibration samples: "CosineSimilarity"; "MSE", which is
            normalised; or an object of AMCT's classes. None for "MSE", and with "BinarySearch" for "CosineSimilarity".
        calibration_data: Batches (arrays, or dicts from input name to array); None lets the evaluator's `calibration`
            run a calibration model.
        max_evaluations: Models evaluated at most, the float one included; 25 when None.
        max_seconds: No trial is started after this time; None for no limit.
        n_jobs: Evaluations at once, -1 for as many as there are processors or workers.
        backend: Where they run, through joblib: "loky", "threading", "dask" or "ray".

    Returns:
        The result: metrics, config, trials, files; its `message` has AMCT's lines. Where even the last layer had to be
        rolled back there is no model, and `satisfied` is False. (AMCT returns None.)

    Raises:
        AmctError: The arguments are mixed up, or the model, config, data or journal cannot be used. Exceptions of the
            evaluator pass through.

    Example:
        >>> result = accuracy_based_auto_calibration(
        ...     "net.onnx", Evaluator(), "config.json", "record.txt", "out")  # doctest: +SKIP
        >>> print(result.message)  # doctest: +SKIP
    """
    import inspect

    # A second argument that can be a file is the weights; None is what an ONNX file has of them.
    if len(arguments) > 1 and (arguments[1] is None or isinstance(arguments[1], str | PathLike)):
        if "weights_file" in keywords:
            raise _wrong_call("multiple values for argument 'weights_file'")
        keywords = {**keywords, "weights_file": arguments[1]}
        arguments = (arguments[0], *arguments[2:])
    try:
        bound = inspect.signature(_run).bind(*arguments, **keywords)
    except TypeError as error:
        raise _wrong_call(str(error)) from error
    return _run(*bound.args, **bound.kwargs)


def _wrong_call(what: str) -> Exception:
    from amct_lite.errors import ParameterError

    return ParameterError(
        f"accuracy_based_auto_calibration: {what}.",
        remedy="Call it with (model_file, model_evaluator, config_file, record_file, save_dir) for ONNX, or with"
        " (model_file, weights_file, model_evaluator, config_file, record_file, save_dir) for Caffe.",
    )


def _run(
    model_file: StrPath,
    model_evaluator: Any,
    config_file: StrPath,
    record_file: StrPath,
    save_dir: StrPath,
    strategy: Any = None,
    sensitivity: Any = None,
    *,
    weights_file: StrPath | None = None,
    calibration_data: Iterable[Any] | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
) -> SearchResult:
    from amct_lite.logs import logged_call
    from amct_lite.search.auto_calibration import run_auto_calibration
    from amct_lite.search.search_options import search_options

    options = search_options(
        "accuracy_based_auto_calibration",
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
        strategy=getattr(strategy, "name", strategy),
        n_jobs=n_jobs,
        backend=backend,
    )
    with logged_call("accuracy_based_auto_calibration"):
        return run_auto_calibration(
            model_file,
            weights_file,
            model_evaluator,
            config_file,
            record_file,
            save_dir,
            calibration_data=calibration_data,
            sensitivity=sensitivity,
            options=options,
        )
