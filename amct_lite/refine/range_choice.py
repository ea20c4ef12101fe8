"""`act_algo: "auto"` with data: per tensor, the range with the least error at the outputs that it reaches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.statistics import Statistics
from amct_lite.errors import CalibrationError, ParameterError
from amct_lite.export.editor import GraphEditor
from amct_lite.files.range_file import LAYER_OUTPUT, RangeChoice
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.range_choice import RangeKey, best_first, range_candidates, range_groups
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.samples import Feed
from amct_lite.refine.stream import Stream
from amct_lite.types import Grid, Layer
from amct_lite.uniform.grid import dequantize, grid_from_range, quantize

__all__ = ["choose_ranges"]

Float32Array = npt.NDArray[np.float32]

# Enough to tell ranges apart: neighbouring positions say much the same, and each costs a product with the weights
# for every candidate.
MAX_SAMPLES = 64
POSITIONS_PER_SAMPLE = 16


def choose_ranges(
    model: Model,
    plans: Sequence[LayerPlan],
    statistics: Statistics,
    feeds: Sequence[Feed],
    *,
    sess_options: Any = None,
) -> dict[RangeKey, RangeChoice]:
    """Choose the range of every tensor that layers with "auto" read.

    The error is the mean of ||W q(x) - W x||**2 over samples and output positions, x being the float network's
    activation, relative to that of ||W x||**2; those of several layers add up.

    Args:
        model: The float model.
        plans: What is done to each layer.
        statistics: What calibration saw; the candidates come from it.
        feeds: Calibration samples.
        sess_options: The user's onnxruntime.SessionOptions.

    Raises:
        CalibrationError: A tensor had no values, or its values have no usable range.
    """
    editor = GraphEditor(model)
    stream = Stream(model.ir, _first_samples(feeds), sess_options=sess_options)
    chosen = {}
    for key, group in range_groups(plans).items():
        tensor, num_bits, with_offset = key
        first = group[0].layer
        stream.advance(first.name)
        try:
            candidates = range_candidates(statistics.snapshot(first), num_bits=num_bits, with_offset=with_offset)
        except ParameterError as error:
            raise CalibrationError(error.cause, layer=first.name, remedy="Add the layer to skip_layers.") from error
        grids = [grid_from_range(clip, num_bits=num_bits, with_offset=with_offset) for _, clip in candidates]
        readers = [_Reader.of(model, editor, plan.layer, len(grids)) for plan in group]
        for activation in stream.tensor(tensor):
            for reader in readers:
                reader.take(activation, grids)
        errors = np.sum([reader.relative_errors for reader in readers], axis=0)
        names = tuple(plan.layer.name for plan in group)
        chosen[key] = RangeChoice(
            tensor, names, num_bits, with_offset, LAYER_OUTPUT, best_first(candidates, errors.tolist())
        )
    return chosen


@dataclass
class _Reader:
    """A layer that reads the tensor, and the errors at its output so far.

    Attributes:
        inputs: The layer's geometry.
        weight: float32 array, shape (groups, rows, K); None for a layer without weights.
        random: Chooses output positions.
        noise: float64 array, one sum of squared errors for each candidate.
        signal: Sum of the squared outputs.
    """

    inputs: LayerInputs
    weight: Float32Array | None
    random: np.random.Generator
    noise: npt.NDArray[np.float64]
    signal: float = 0.0

    @classmethod
    def of(cls, model: Model, editor: GraphEditor, layer: Layer, num_candidates: int) -> "_Reader":
        weight = None
        if layer.weight is not None:
            rows = to_rows(model.weight(layer.weight), layer)
            weight = rows.reshape(layer.group, -1, rows.shape[1])
        seed = model.layers.index(layer)
        inputs = LayerInputs.of_node(layer, editor.node_of(layer))
        return cls(inputs, weight, np.random.default_rng(seed), np.zeros(num_candidates))

    @property
    def relative_errors(self) -> npt.NDArray[np.float64]:
        return self.noise / self.signal if self.signal > 0.0 else self.noise

    def take(self, activation: npt.NDArray[Any], grids: Sequence[Grid]) -> None:
        """Measure one batch."""
        if not activation.size:
            return
        vectors = self._vectors(activation)
        self.signal += self._power_at_output(vectors)
        for index, grid in enumerate(grids):
            self.noise[index] += self._power_at_output(dequantize(quantize(vectors, grid), grid) - vectors)

    def _vectors(self, activation: npt.NDArray[Any]) -> Float32Array:
        """Inputs of some output positions, shape (groups, vectors, K); all values for a layer without weights."""
        if self.weight is None:
            return np.asarray(activation, np.float32).reshape(1, 1, -1)
        positions = self.inputs.positions(activation.shape, POSITIONS_PER_SAMPLE, self.random)
        return self.inputs.vectors(activation, positions)

    def _power_at_output(self, vectors: Float32Array) -> float:
        outputs = vectors if self.weight is None else vectors @ self.weight.transpose(0, 2, 1)
        return float(np.sum(np.square(outputs, dtype=np.float64)))


def _first_samples(feeds: Sequence[Feed]) -> list[Feed]:
    def walk() -> Iterator[Feed]:
        left = MAX_SAMPLES
        for feed in feeds:
            if left <= 0:
                return
            yield feed
            left -= _num_samples(feed)

    return list(walk())


def _num_samples(feed: Mapping[str, npt.NDArray[Any]]) -> int:
    return max((values.shape[0] for values in feed.values() if values.ndim), default=1)
