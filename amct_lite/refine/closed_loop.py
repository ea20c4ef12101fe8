"""The closed loop: layer by layer, levels and weights chosen for the inputs that the layers quantized before it give.

What quantization does to a layer's input is known when the layer's turn comes, and its weights and bias make up for
it: the target is always what the float network's layer puts out (Frantar et al. 2023, arXiv 2210.17323, section 4
runs its layers in the same order, but towards the float weights; the bias part is Nagel et al. 2019, "Data-Free
Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.2, with data).
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.output_levels import LevelsAndBounds, OutputResponse, levels_for_output
from amct_lite.export.editor import GraphEditor
from amct_lite.export.fake_quant import fake_quantizer
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.apply_record import quantize_input, quantize_layer
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.level_response import layer_response, sum_of
from amct_lite.refine.samples import Feed
from amct_lite.refine.stream import Stream
from amct_lite.refine.weight_fitting import WeightFitter, takes_bias
from amct_lite.types import Grid, Layer

__all__ = ["refine_layers"]

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# A layer whose output is weaker than this share of another's, with the same weight, is taken for silent.
LEAST_POWER = 1e-9


def refine_layers(
    model: Model,
    plans: Sequence[LayerPlan],
    records: Mapping[str, LayerRecord],
    feeds: Sequence[Feed],
    *,
    progress: Progress | None = None,
    sess_options: Any = None,
) -> dict[str, LayerRecord]:
    """Choose the levels, weights and biases of all layers that ask for samples.

    Args:
        model: The float model.
        plans: What is done to each layer.
        records: The factors found so far: activation grids, int8 scales, codebooks without data.
        feeds: The calibration samples.
        progress: Called after each layer with (layers done, layers in all).
        sess_options: The user's onnxruntime.SessionOptions.

    Returns:
        The records with activation levels, codebooks, fitted weights and biases, in the same order.

    Raises:
        CalibrationError: Inputs of a layer are missing or not finite.
    """
    loop = _ClosedLoop(model, records, feeds, sess_options)
    enabled = [plan for plan in plans if plan.config is not None]
    for number, plan in enumerate(enabled):
        loop.take(plan, enabled)
        if progress is not None:
            progress(number + 1, len(enabled))
    return loop.records


class _ClosedLoop:
    def __init__(
        self, model: Model, records: Mapping[str, LayerRecord], feeds: Sequence[Feed], sess_options: Any
    ) -> None:
        self.records = dict(records)
        self._model = model
        self._editor = GraphEditor(model)
        self._float_stream = Stream(model.ir, feeds, sess_options=sess_options)
        self._quantized_stream = Stream(self._editor.ir, feeds, sess_options=sess_options)
        self._replacer = fake_quantizer(self._editor)
        self._fitter = WeightFitter(model, self._editor.node_of, self._input_pairs)
        self._levels: dict[Hashable, LevelsAndBounds] = {}

    def take(self, plan: LayerPlan, plans: Sequence[LayerPlan]) -> None:
        """Quantize one of several layers, all layers before it being quantized."""
        layer, name = plan.layer, plan.layer.name
        if plan.uses_samples:
            for stream in (self._float_stream, self._quantized_stream):
                stream.advance(name)
            if plan.has_output_aware_levels:
                self._choose_levels(plan, plans)
            self._quantize_input(layer)
            tied = [other for other in plans if other.layer.name in layer.tied_with]
            self.records[name] = self._fitter.fit(plan, self.records[name], tied)
        quantized = quantize_layer(self._model, layer, self.records[name])
        self._replacer.replace(quantized)

    def _choose_levels(self, plan: LayerPlan, plans: Sequence[LayerPlan]) -> None:
        """The levels of the layer's input, once for all layers that quantize the same tensor alike."""
        key = self._input_key(plan.layer)
        record = self.records[plan.layer.name]
        if key not in self._levels:
            readers = [one for one in plans if one.has_output_aware_levels and self._input_key(one.layer) == key]
            self._levels[key] = levels_for_output(
                np.array(record.activation_cluster),
                sum_of(map(self._response, readers)),
                zero_level=record.offset_d,
                reserve_zero=plan.keeps_zero,
            )
        found = self._levels[key]
        self.records[plan.layer.name] = dataclasses.replace(
            record, activation_cluster=tuple(map(int, found.levels)), activation_cluster_cost=found.costs()
        )

    def _input_key(self, layer: Layer) -> Hashable:
        record = self.records[layer.name]
        return layer.activation, record.scale_d, record.offset_d, record.activation_cluster

    def _quantize_input(self, layer: Layer) -> None:
        record = self.records[layer.name]
        if record.scale_d is not None:
            self._replacer.replace_activation(quantize_input(layer, record))

    def _response(self, plan: LayerPlan) -> OutputResponse:
        layer = plan.layer
        assert layer.weight is not None
        record = self.records[layer.name]
        assert record.scale_d is not None
        return layer_response(
            LayerInputs.of_node(layer, self._editor.node_of(layer)),
            to_rows(self._model.weight(layer.weight), layer),
            Grid(record.scale_d, record.offset_d),
            self._input_pairs(layer),
            takes_bias=plan.fits_bias and takes_bias(layer, self._editor.node_of(layer)),
            seed=self._model.layers.index(layer),
        )

    def _input_pairs(self, layer: Layer) -> Iterator[tuple[Array, Array]]:
        """The layer's input in the float network, and in the quantized one as the graph now has it."""
        seen = self._editor.node_of(layer).inputs[layer.activation_index]
        assert seen is not None
        floats = self._float_stream.tensor(layer.activation)
        return zip(floats, self._quantized_stream.tensor(str(seen.name)), strict=True)
