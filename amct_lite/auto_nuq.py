"""Automatic NUQ search: the evaluator's base class and the verb, under AMCT's module name.

`from amct_lite.auto_nuq import AutoNuqEvaluatorBase` and `amct_lite.auto_nuq(...)` both work, as in AMCT.
This module imports nothing heavy, so that a user's evaluator file loads fast.
"""

from __future__ import annotations  # old Pythons import this on the way to caffe_layers

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amct_lite.search.result import SearchResult
    from amct_lite.search.strategies.registry import MakeStrategy

__all__ = ["AutoNuqEvaluatorBase", "auto_nuq"]


class AutoNuqEvaluatorBase:
    """The user's accuracy test. Subclass it and write `eval_model` and `is_satisfied`.

    Attributes:
        evaluate_batch_num: The number of batches that `eval_model` is asked to evaluate.

    Example:
        >>> class Evaluator(AutoNuqEvaluatorBase):
        ...     def eval_model(self, model_file, weights_file, batch_num):
        ...         return 0.9  # run the model, return one number
        ...     def is_satisfied(self, original_metric, new_metric):
        ...         return original_metric - new_metric <= 0.01
        >>> Evaluator(evaluate_batch_num=5).evaluate_batch_num
        5
    """

    def __init__(self, evaluate_batch_num: Any = 1) -> None:
        # AMCT's own sample calls `super().__init__(self)`, which passes the object as the number: keep the default.
        is_number = isinstance(evaluate_batch_num, int) and not isinstance(evaluate_batch_num, bool)
        self.evaluate_batch_num: int = evaluate_batch_num if is_number else 1

    def eval_model(self, model_file: str, weights_file: str | None, batch_num: int) -> float:
        """Run a model on the user's data and return one metric.

        Args:
            model_file: Path of the model to evaluate.
            weights_file: Path of its weights; None for ONNX, where the model file holds them.
            batch_num: How many batches to run.

        Returns:
            The metric, one number.
        """
        raise NotImplementedError(f"{type(self).__name__} must define eval_model(model_file, weights_file, batch_num).")

    def is_satisfied(self, original_metric: float, new_metric: float) -> bool:
        """Say whether a compressed model is good enough.

        Args:
            original_metric: What `eval_model` returned for the float model.
            new_metric: What it returned for the compressed one.

        Returns:
            True where the compressed model is acceptable.
        """
        raise NotImplementedError(f"{type(self).__name__} must define is_satisfied(original_metric, new_metric).")

    def fingerprint(self) -> str:
        """Say what the metric depends on beside the model: part of the key under which trials are remembered.

        Override it where the class and the number of batches do not tell, for example with a digest of the data.
        """
        return f"{type(self).__qualname__} over {self.evaluate_batch_num} batches"


def auto_nuq(
    model_file: str | PathLike[str],
    weights_file: str | PathLike[str] | None,
    nuq_evaluator: AutoNuqEvaluatorBase,
    config_file: str | PathLike[str],
    scale_offset_record_file: str | PathLike[str],
    save_dir: str | PathLike[str],
    *,
    calibration_data: Iterable[Any] | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    objective: str = "smallest",
    max_bytes: int | None = None,
    equivalent_bits: float | None = None,
    greater_is_better: bool = True,
    strategy: str | MakeStrategy | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
) -> SearchResult:
    """Search the smallest NUQ config that the user's accuracy test accepts, and save it.

    Every trial is journalled in `save_dir`; calling again after an interruption goes on where it stopped. Ctrl-C ends
    the search as the end of its budget does: the best so far is saved and returned, and its `stop` says so.

    Args:
        model_file: The float network: an ONNX file, or a prototxt.
        weights_file: The caffemodel of a prototxt; None for ONNX, which holds its weights itself.
        nuq_evaluator: The user's accuracy test.
        config_file: A config written by `create_quant_config`, edited or not. Layers that are enabled there and that
            the target allows take part; `auto_nuq` in it says which level counts and ratios are tried.
        scale_offset_record_file: Where the record of the result is written.
        save_dir: Folder for everything else: models, final config, summary, journal, statistics.
        calibration_data: Batches (arrays, or dicts from input name to array); None lets the evaluator's own run over
            a calibration model do it.
        max_evaluations: Models evaluated at most, the float one included; 25 when None.
        max_seconds: No trial is started after this time; None for no limit.
        objective: "smallest": the smallest model that `is_satisfied` accepts. "best": the best metric within
            `max_bytes` or `equivalent_bits`. "front": for every size the best metric, as far as the budget goes.
        max_bytes: Bytes that the "best" model may take, as the search counts them.
        equivalent_bits: The same as an average of bits over all weights.
        greater_is_better: Whether a greater metric is a better one; "smallest" does not need to know.
        strategy: How choices are found: "frontier" (the default), or for comparison another one of
            `amct_lite.search.strategies.registry.STRATEGIES` ("BinarySearch", "tpe", "nsga2", "ddpg"), or a function
            that makes one.
        n_jobs: Evaluations at once, -1 for as many as there are processors or workers. The result is the same as with
            one, but `max_evaluations` does not count models evaluated ahead that turn out not to be needed.
        backend: Where they run, through joblib: "loky" (processes), "threading", "dask" (with a distributed.Client) or
            "ray". The evaluator is sent to other processes, pickled, and so are models.

    Returns:
        The result: whether it satisfies, metrics, config, trials, front, files.

    Raises:
        AmctError: The model, config, data or journal cannot be used. Exceptions of the evaluator pass through.
    """
    from amct_lite.logs import logged_call
    from amct_lite.search.auto_nuq import run_auto_nuq
    from amct_lite.search.search_options import search_options

    options = search_options(
        "auto_nuq",
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
        objective=objective,
        max_bytes=max_bytes,
        equivalent_bits=equivalent_bits,
        greater_is_better=greater_is_better,
        strategy=strategy,
        n_jobs=n_jobs,
        backend=backend,
    )
    with logged_call("auto_nuq"):
        return run_auto_nuq(
            model_file,
            weights_file,
            nuq_evaluator,
            config_file,
            scale_offset_record_file,
            save_dir,
            calibration_data=calibration_data,
            options=options,
        )
