"""A calibration that goes on inside the user's own loop: each run of a calibration model is one batch."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from amct_lite.calibration.kept_batches import KeptBatches
from amct_lite.calibration.modified_model import CalibrationTask
from amct_lite.calibration.observed_session import observe_batch
from amct_lite.calibration.reuse import DataDigest, save_with_keys
from amct_lite.calibration.statistics import Statistics
from amct_lite.errors import CalibrationError
from amct_lite.files.record import write_record
from amct_lite.quantize.balancing import balance
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.planned_graph import open_graph

__all__ = ["RunningCalibration"]

_logger = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]


class RunningCalibration:
    """Observers that a session feeds, and what is written once they have seen enough.

    Attributes:
        task: What to observe, over how many batches, and what to write.
    """

    def __init__(self, task: CalibrationTask) -> None:
        self.task = task
        self._statistics = Statistics(task.tensors, by_channel=task.by_channel)
        self._data = DataDigest()
        self._kept = KeptBatches()
        self._failure: CalibrationError | None = None

    @property
    def done(self) -> bool:
        """Whether `batch_num` batches have been seen: further runs only compute."""
        return self._statistics.batches >= self.task.batch_num

    @property
    def next_batch(self) -> int:
        """Number of the next batch, from 1."""
        return self._statistics.batches + 1

    def refuse_after_failure(self) -> None:
        """Refuse to go on behind a batch that was observed only in part.

        Raises:
            CalibrationError: There was such a batch.
        """
        if self._failure is not None:
            raise CalibrationError(
                "An earlier batch of this calibration failed, so some of its tensors were observed and others not.",
                remedy="Open the calibration model again and give it batches that are sound.",
            ) from self._failure

    def observe(self, feed: Arrays, values: Arrays) -> None:
        """Take in one batch; after the last one, write the record or the statistics.

        Args:
            feed: The batch's inputs.
            values: At least the observed tensors that are not inputs.

        Raises:
            CalibrationError: Activations are not finite, or the float model has changed.
        """
        try:
            observe_batch(self._statistics, feed, values)
        except CalibrationError as error:
            self._failure = error
            raise
        for tensor in self.task.tensors:
            seen = self._statistics.batches
            _logger.info('Doing layer: "%s" calibration, already store %d/%d data.', tensor, seen, self.task.batch_num)
        if self.task.statistics_file is not None:
            self._data.add(feed, self._statistics.batches)
        if self.task.samples_file is not None:
            self._kept.add(feed)
        if self.done:
            self._finish()

    def _finish(self) -> None:
        task = self.task
        if task.samples_file is not None:  # before the statistics, which say that all is there
            self._kept.save(task.samples_file)
        if task.statistics_file is not None:
            save_with_keys(self._statistics, task.statistics_file, task.model_digest, task.batch_num, self._data)
        if task.record_file is not None:
            planned = open_graph(task.config_file, task.model_file, task.weights_file)
            if planned.model.digest != task.model_digest:
                raise CalibrationError(
                    f"The float model {task.model_file} has changed since the calibration model was written.",
                    remedy="Run quantize_model again.",
                )
            planned, statistics = balance(planned, self._statistics)
            mode = planned.config.fakequant_precision_mode
            records = make_records(planned.model, planned.all_plans, statistics, fakequant_precision_mode=mode)
            write_record(records, task.record_file)
