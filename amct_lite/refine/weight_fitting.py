"""The weights and the bias of one layer, chosen for the inputs that it gets: codebooks, uniform levels, fitted floats.

The target is what the float network's layer puts out. What stands in front of the layer is the caller's: in the closed
loop all layers before it are quantized, in a search none is.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.codebook.cluster_rows import cluster_rows
from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.held_out import held_out_damping, held_out_form, held_out_target
from amct_lite.codebook.second_moments import LEAST_DAMPING, SecondMoments, asymmetric_target, mean_of
from amct_lite.codebook.specification import CodebookSpec
from amct_lite.files.config import ArqParams
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.weight_rows import from_rows, to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.moments import fold_moments
from amct_lite.refine.output_statistics import output_deviations, re_estimated_factors
from amct_lite.refine.shared_weights import shared_moments
from amct_lite.refine.uniform_weights import UniformRows, fit_uniform_rows
from amct_lite.types import Layer

__all__ = ["Folds", "InputPairs", "WeightFitter", "takes_bias"]

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

InputPairs = Callable[[Layer], Iterator[tuple[Array, Array]]]
"""A layer's input in the float network, and as the quantized layer gets it, batch by batch."""

Folds = tuple[SecondMoments, ...]
"""The moments of a layer's inputs, by halves of the samples."""

# Weights of 8 bits: 0.03, 0.1 and 0.3 gave KL 0.0039, 0.0036, 0.0039 on SqueezeNet 1.1 at 8 bits, and the two
# halves of the photos order them differently: anything in between will do.
INT8_DAMPING = 0.1


class WeightFitter:
    """Fits one layer after the other; layers that share a weight get it once, fitted to the inputs of all."""

    def __init__(
        self,
        model: Model,
        node_of: Callable[[Layer], ir.Node],
        input_pairs: InputPairs,
        folds_of: Callable[[Layer], Folds] | None = None,
        *,
        keeps_spread: bool = True,
    ) -> None:
        """Make a fitter.

        Args:
            model: The float model.
            node_of: A layer's node, for its geometry.
            input_pairs: What layers get.
            folds_of: The moments of a layer's inputs, where the caller has them; by default those of the pairs.
            keeps_spread: Whether fitted outputs get back the spread that the least squared error takes; it looks at all
                inputs once more, for nothing where no layer in front is quantized.
        """
        self._model, self._node_of, self._input_pairs = model, node_of, input_pairs
        self._folds_of = folds_of or self._folds_of_pairs
        self._keeps_spread = keeps_spread
        self._codebooks: dict[str, Codebook] = {}
        self._rows: dict[str, Float32Array] = {}
        self._uniform: dict[str, UniformRows] = {}

    def fit(self, plan: LayerPlan, record: LayerRecord, tied: Sequence[LayerPlan]) -> LayerRecord:
        """The record with the layer's codebook or fitted weight, and its bias, where the plan asks for them.

        Args:
            plan: What is done to the layer.
            record: Its factors so far.
            tied: The plans of the layers that share its weight.
        """
        layer = plan.layer
        if plan.codebook is not None and plan.refines_codebook:
            folds = self._folds_of(layer)
            codebook = self._codebook(layer, plan.codebook, folds, tied, few_levels=bool(record.activation_cluster))
            bias = self._bias(layer, codebook.decode(), mean_of(folds))
            return dataclasses.replace(record, codebook=codebook, bias=bias)
        if plan.refits_weight:
            folds = self._folds_of(layer)
            rows = self._fitted_rows(layer, folds, tied)
            bias = self._bias(layer, rows, mean_of(folds))
            weight = np.ascontiguousarray(from_rows(rows, layer))
            return dataclasses.replace(record, weight=weight, bias=bias)
        if isinstance(plan.weight_params, ArqParams) and plan.fits_bias:
            return self._fit_uniform(plan, plan.weight_params, record, tied)
        return record

    def _fit_uniform(
        self, plan: LayerPlan, params: ArqParams, record: LayerRecord, tied: Sequence[LayerPlan]
    ) -> LayerRecord:
        layer, folds = plan.layer, self._folds_of(plan.layer)
        moments = mean_of(folds)
        rows = self._uniform_rows(plan, params, record, folds, tied)
        if params.batch_norm_reestimation and not tied and rows.scales.size > 1:
            factors = self._re_estimated(layer, rows.decode())
            rows = dataclasses.replace(rows, scales=(rows.scales * factors).astype(np.float32))
        bias = self._bias(layer, rows.decode(), moments)
        own = bias if bias is not None or layer.bias is None else self._model.weight(layer.bias).reshape(-1)
        if own is not None and record.scale_d is not None:
            rows = rows.with_room_for(own, record.scale_d, params.num_bits)
        return dataclasses.replace(
            record,
            scale_w=tuple(map(float, rows.scales)),
            weight=np.ascontiguousarray(from_rows(rows.decode(), layer)),
            bias=bias,
        )

    def _uniform_rows(
        self,
        plan: LayerPlan,
        params: ArqParams,
        record: LayerRecord,
        folds: Folds,
        tied: Sequence[LayerPlan],
    ) -> UniformRows:
        """The rows of a uniform weight, once for all layers that share it."""
        weight = plan.layer.weight
        assert weight is not None
        if weight not in self._uniform:
            scales = np.array(record.scale_w, np.float32)
            if params.rounding == "nearest":
                rows = to_rows(self._model.weight(weight), plan.layer)
                self._uniform[weight] = UniformRows.nearest(rows, scales, params.num_bits)
            else:
                own, halves = self._halves(plan.layer, folds, tied)
                target = _target(own, halves)
                quadratic = held_out_form(halves, INT8_DAMPING if params.num_bits == 8 else LEAST_DAMPING)
                self._uniform[weight] = fit_uniform_rows(target, quadratic, params, channel_wise=scales.size > 1)
        return self._uniform[weight]

    def _re_estimated(self, layer: Layer, rows: Float32Array, *, centred: bool = True) -> Float64Array:
        """What each output channel is multiplied with to vary as in the float network."""
        assert layer.weight is not None
        inputs, seed = LayerInputs.of_node(layer, self._node_of(layer)), self._model.layers.index(layer)
        weights = to_rows(self._model.weight(layer.weight), layer), rows
        deviations = output_deviations(inputs, weights, self._input_pairs(layer), seed=seed, centred=centred)
        return re_estimated_factors(*deviations)

    def _folds_of_pairs(self, layer: Layer) -> Folds:
        inputs = LayerInputs.of_node(layer, self._node_of(layer))
        return fold_moments(inputs, self._input_pairs(layer), seed=self._model.layers.index(layer))

    def _codebook(
        self, layer: Layer, spec: CodebookSpec, folds: Folds, tied: Sequence[LayerPlan], *, few_levels: bool
    ) -> Codebook:
        """The codebook of a weight, once for all layers that share it.

        Where inputs have few levels, what they lose outweighs what the codebook does: it is made of the weight that
        is fitted to them as carefully as a float one.
        """
        assert layer.weight is not None
        if layer.weight not in self._codebooks:
            if spec.refine.uses_moments:
                own, halves = self._halves(layer, folds, tied)
                if few_levels:
                    target = self._fitted_rows(layer, folds, tied).astype(np.float64)
                else:
                    target = _target(own, halves)
                    sharing = [layer, *(plan.layer for plan in tied)]
                    target = self._with_spread(target.reshape(-1, own.shape[2]), sharing)
                codebook = cluster_rows(target, spec, quadratic=held_out_form(halves))
            else:
                codebook = cluster_rows(to_rows(self._model.weight(layer.weight), layer), spec)
            self._codebooks[layer.weight] = codebook
        return self._codebooks[layer.weight]

    def _fitted_rows(self, layer: Layer, folds: Folds, tied: Sequence[LayerPlan]) -> Float32Array:
        """The fitted rows of a weight, once for all layers that share it."""
        assert layer.weight is not None
        if layer.weight not in self._rows:
            own, halves = self._halves(layer, folds, tied)
            target = held_out_target(own, halves).reshape(-1, own.shape[2])
            sharing = [layer, *(plan.layer for plan in tied)]
            self._rows[layer.weight] = self._with_spread(target, sharing).astype(np.float32)
        return self._rows[layer.weight]

    def _with_spread(self, target: Float64Array, sharing: Sequence[Layer]) -> Float64Array:
        """A target's rows, each by a factor for its output to vary as in the float network.

        The least squared error alone makes outputs small: it trusts an input less the more noise quantization put into
        it. Layer after layer the network would say less and less.
        """
        if not self._keeps_spread:
            return target
        rows = target.astype(np.float32)
        factors = [self._re_estimated(layer, rows, centred=self._takes_bias(layer)) for layer in sharing]
        return np.asarray(target * np.mean(factors, axis=0)[:, None])

    def _halves(
        self, layer: Layer, folds: Folds, tied: Sequence[LayerPlan]
    ) -> tuple[Float64Array, list[SecondMoments]]:
        """The float weight by groups, and the moments of all layers that share it, by halves of the samples."""
        own = self._weight_by_groups(layer, len(folds[0].quadratic))
        everywhere = [folds, *(self._folds_of(plan.layer) for plan in tied)]
        return own, shared_moments(own, everywhere, centred=self._takes_bias(layer))

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
        return takes_bias(layer, self._node_of(layer))


def _target(own: Float64Array, halves: Sequence[SecondMoments]) -> Float64Array:
    """The weight that serves the quantized inputs, fitted to them as far as both halves of the samples agree."""
    return asymmetric_target(own, mean_of(halves), held_out_damping(own, halves))


def takes_bias(layer: Layer, node: ir.Node) -> bool:
    """Whether the operator takes a bias over its output channels, and has none that is no such constant."""
    if layer.op_type not in ("Conv", "ConvTranspose", "Gemm") or layer.activation_index != 0:
        return False
    return layer.bias is not None or len(node.inputs) < 3 or node.inputs[2] is None
