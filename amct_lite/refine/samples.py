"""Calibration samples held for refinement: the first ones, so that memory stays bounded whatever the data."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.calibration.feeds import InputSpec, input_specs, to_feed
from amct_lite.errors import CalibrationError
from amct_lite.graph.runtime import create_session

__all__ = ["MAX_SAMPLES", "Feed", "SampleKeeper"]

Feed = dict[str, npt.NDArray[Any]]

# More samples gain little and cost time and memory in proportion.
MAX_SAMPLES = 256

# Samples run through a network at a time: enough for both cores, few enough for the memory of large activations.
RUN_SAMPLES = 16


class SampleKeeper:
    """Passes batches on and keeps the first `max_samples` samples of them.

    Attributes:
        feeds: What was kept, cut into feeds of at most 16 samples.
    """

    def __init__(self, specs: Sequence[InputSpec], max_samples: int = MAX_SAMPLES) -> None:
        self.feeds: list[Feed] = []
        self._specs, self._left = specs, max_samples
        self._number = 0
        # Inputs with a fixed first size can only be run in batches of that size.
        self._divisible = all(spec.shape is not None and spec.shape[:1] in ((None,), (1,)) for spec in specs)

    @classmethod
    def of_model(cls, model: ir.Model, max_samples: int = MAX_SAMPLES, *, sess_options: Any = None) -> "SampleKeeper":
        """What keeps samples of a model's inputs.

        Args:
            model: The float model.
            max_samples: How many.
            sess_options: The user's onnxruntime.SessionOptions.
        """
        return cls(input_specs(create_session(model, sess_options=sess_options)), max_samples)

    def watch(self, batches: Iterable[Any], batch_num: int) -> Iterator[Any]:
        """The same batches, at most `batch_num` of them, kept as they pass.

        Raises:
            CalibrationError: A batch does not fit the model, or holds values that are not finite.
        """
        for batch in batches:
            self._number += 1
            if self._left > 0:
                self._keep(to_feed(batch, self._specs, self._number))
            yield batch
            if self._number == batch_num:
                return

    def _keep(self, feed: Feed) -> None:
        for name, values in feed.items():
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                raise CalibrationError(
                    f"The input {name!r} is not finite in batch {self._number}.",
                    remedy="Check the data's preprocessing.",
                )
        sizes = {values.shape[0] if values.ndim else 1 for values in feed.values()}
        count = sizes.pop() if len(sizes) == 1 else 1
        if not self._divisible or sizes or any(not values.ndim for values in feed.values()):
            self.feeds.append({name: values.copy() for name, values in feed.items()})
            self._left -= count
            return
        for start in range(0, min(count, self._left), RUN_SAMPLES):
            stop = min(start + RUN_SAMPLES, count, self._left)
            self.feeds.append({name: values[start:stop].copy() for name, values in feed.items()})
        self._left -= count
