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

from amct_lite.codebook.cluster_rows import cluster_rows
from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.held_out import held_out_damping
from amct_lite.codebook.output_levels import LevelsAndBounds, OutputResponse, levels_for_output
from amct_lite.codebook.second_moments import SecondMoments, asymmetric_target, damped, mean_of
from amct_lite.codebook.specification import CodebookSpec
from amct_lite.export.editor import GraphEditor
from amct_lite.export.fake_quant import fake_quantizer
from amct_lite.files.config import ArqParams
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.apply_record import quantize_input, quantize_layer
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.weight_rows import from_rows, to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.level_response import layer_response, sum_of
from amct_lite.refine.moments import fold_moments
from amct_lite.refine.output_statistics import output_deviations, re_estimated_factors
from amct_lite.refine.samples import Feed
from amct_lite.refine.shared_weights import shared_moments
from amct_lite.refine.stream import Stream
from amct_lite.refine.uniform_weights import UniformRows, fit_uniform_rows
from amct_lite.types import Grid, Layer

__all__ = ["refine_layers"]

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Weights of 8 bits: 0.03, 0.1 and 0.3 gave KL 0.0039, 0.0036, 0.0039 on SqueezeNet 1.1 at 8 bits, and the two
# halves of the photos order them differently: anything in between will do.
INT8_DAMPING = 0.1


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
        self._codebooks: dict[str, Codebook] = {}
        self._rows: dict[str, Float32Array] = {}
        self._uniform: dict[str, UniformRows] = {}
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
            self._fit_weight(plan, tied)
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

    def _fit_weight(self, plan: LayerPlan, tied: Sequence[LayerPlan]) -> None:
        """The layer's codebook or fitted weight, and its bias, where it asks for them."""
        layer, name = plan.layer, plan.layer.name
        if plan.codebook is not None and plan.refines_codebook:
            moments = self._moments(layer)
            codebook = self._codebook(layer, plan.codebook, moments, tied)
            bias = self._bias(layer, codebook.decode(), moments)
            self.records[name] = dataclasses.replace(self.records[name], codebook=codebook, bias=bias)
        elif plan.refits_weight:
            moments = self._moments(layer)
            rows = self._fitted_rows(layer, moments, tied)
            bias = self._bias(layer, rows, moments)
            weight = np.ascontiguousarray(from_rows(rows, layer))
            self.records[name] = dataclasses.replace(self.records[name], weight=weight, bias=bias)
        elif isinstance(plan.weight_params, ArqParams) and plan.fits_bias:
            self._fit_uniform(plan, plan.weight_params, tied)

    def _fit_uniform(self, plan: LayerPlan, params: ArqParams, tied: Sequence[LayerPlan]) -> None:
        layer, record, folds = plan.layer, self.records[plan.layer.name], self._folds(plan.layer)
        moments = mean_of(folds)
        rows = self._uniform_rows(plan, params, folds, tied)
        if params.batch_norm_reestimation and not tied and rows.scales.size > 1:
            rows = dataclasses.replace(rows, scales=(rows.scales * self._re_estimated(layer, rows)).astype(np.float32))
        bias = self._bias(layer, rows.decode(), moments)
        own = bias if bias is not None or layer.bias is None else self._model.weight(layer.bias).reshape(-1)
        if own is not None and record.scale_d is not None:
            rows = rows.with_room_for(own, record.scale_d, params.num_bits)
        self.records[layer.name] = dataclasses.replace(
            record,
            scale_w=tuple(map(float, rows.scales)),
            weight=np.ascontiguousarray(from_rows(rows.decode(), layer)),
            bias=bias,
        )

    def _uniform_rows(
        self, plan: LayerPlan, params: ArqParams, folds: Sequence[SecondMoments], tied: Sequence[LayerPlan]
    ) -> UniformRows:
        """The rows of a uniform weight, once for all layers that share it."""
        weight = plan.layer.weight
        assert weight is not None
        if weight not in self._uniform:
            scales = np.array(self.records[plan.layer.name].scale_w, np.float32)
            if params.rounding == "nearest":
                rows = to_rows(self._model.weight(weight), plan.layer)
                self._uniform[weight] = UniformRows.nearest(rows, scales, params.num_bits)
            else:
                own = self._weight_by_groups(plan.layer, len(folds[0].quadratic))
                everywhere = [folds, *(self._folds(one.layer) for one in tied)]
                halves = shared_moments(own, everywhere, centred=self._takes_bias(plan.layer))
                targets = mean_of(halves)
                target = asymmetric_target(own, targets, held_out_damping(own, halves))
                quadratic = damped(
                    targets.quadratic, max(targets.damping, INT8_DAMPING if params.num_bits == 8 else 0.0)
                )
                self._uniform[weight] = fit_uniform_rows(target, quadratic, params, channel_wise=scales.size > 1)
        return self._uniform[weight]

    def _re_estimated(self, layer: Layer, rows: UniformRows) -> Float64Array:
        """What each output channel is multiplied with to vary as in the float network."""
        assert layer.weight is not None
        inputs, seed = LayerInputs.of_node(layer, self._editor.node_of(layer)), self._model.layers.index(layer)
        own = to_rows(self._model.weight(layer.weight), layer)
        floats = (pair[0] for pair in self._input_pairs(layer))
        quantized = (pair[1] for pair in self._input_pairs(layer))
        return re_estimated_factors(
            output_deviations(inputs, own, floats, seed=seed),
            output_deviations(inputs, rows.decode(), quantized, seed=seed),
        )

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
            takes_bias=plan.fits_bias and self._takes_bias(layer),
            seed=self._model.layers.index(layer),
        )

    def _moments(self, layer: Layer) -> SecondMoments:
        return mean_of(self._folds(layer))

    def _folds(self, layer: Layer) -> tuple[SecondMoments, ...]:
        """The moments of the layer's inputs, by halves of the samples."""
        inputs = LayerInputs.of_node(layer, self._editor.node_of(layer))
        return fold_moments(inputs, self._input_pairs(layer), seed=self._model.layers.index(layer))

    def _input_pairs(self, layer: Layer) -> Iterator[tuple[Array, Array]]:
        """The layer's input in the float network, and in the quantized one as the graph now has it."""
        seen = self._editor.node_of(layer).inputs[layer.activation_index]
        assert seen is not None
        floats = self._float_stream.tensor(layer.activation)
        return zip(floats, self._quantized_stream.tensor(str(seen.name)), strict=True)

    def _codebook(
        self, layer: Layer, spec: CodebookSpec, moments: SecondMoments, tied: Sequence[LayerPlan]
    ) -> Codebook:
        """The codebook of a weight, once for all layers that share it."""
        assert layer.weight is not None
        if layer.weight not in self._codebooks:
            if spec.refine.uses_moments:
                target, targets = self._target(layer, moments, tied)
                codebook = cluster_rows(target, spec, quadratic=damped(targets.quadratic, targets.damping))
            else:
                codebook = cluster_rows(to_rows(self._model.weight(layer.weight), layer), spec)
            self._codebooks[layer.weight] = codebook
        return self._codebooks[layer.weight]

    def _fitted_rows(self, layer: Layer, moments: SecondMoments, tied: Sequence[LayerPlan]) -> Float32Array:
        """The fitted rows of a weight, once for all layers that share it."""
        assert layer.weight is not None
        if layer.weight not in self._rows:
            self._rows[layer.weight] = self._target(layer, moments, tied)[0].astype(np.float32)
        return self._rows[layer.weight]

    def _target(
        self, layer: Layer, moments: SecondMoments, tied: Sequence[LayerPlan]
    ) -> tuple[Float64Array, SecondMoments]:
        """The rows that serve the quantized inputs of all layers that share a weight, and the moments of those."""
        weight = self._weight_by_groups(layer, len(moments.quadratic))
        everywhere = [(moments,), *((self._moments(plan.layer),) for plan in tied)]
        (targets,) = shared_moments(weight, everywhere, centred=self._takes_bias(layer))
        return asymmetric_target(weight, targets, targets.damping).reshape(-1, weight.shape[2]), targets

    def _weight_by_groups(self, layer: Layer, groups: int) -> Float64Array:
        """The float weight, shape (groups, rows, K)."""
        assert layer.weight is not None
        rows = to_rows(self._model.weight(layer.weight), layer)
        return rows.astype(np.float64).reshape(groups, -1, rows.shape[1])

    def _bias(self, layer: Layer, quantized_rows: Float32Array, moments: SecondMoments) -> Float32Array | None:
        """The bias with which the layer's mean output is the float network's: b + W E[z] - Q E[x]."""
        if not self._takes_bias(layer):
            return None
        weight = self._weight_by_groups(layer, len(moments.quadratic))
        quantized = quantized_rows.astype(np.float64).reshape(weight.shape)
        shift = weight @ moments.float_mean[:, :, None] - quantized @ moments.quantized_mean[:, :, None]
        own = 0.0 if layer.bias is None else self._model.weight(layer.bias).reshape(-1)
        return (own + shift.reshape(-1)).astype(np.float32)

    def _takes_bias(self, layer: Layer) -> bool:
        """Whether the operator takes a bias over its output channels, and has none that is no such constant."""
        if layer.op_type not in ("Conv", "ConvTranspose", "Gemm") or layer.activation_index != 0:
            return False
        node = self._editor.node_of(layer)
        return layer.bias is not None or len(node.inputs) < 3 or node.inputs[2] is None
