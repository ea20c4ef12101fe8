"""From a plan and the calibration's statistics to the record: scales, offsets and kept levels of every layer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.calibration.statistics import Statistics
from amct_lite.codebook.activation_nuq import cluster_activation, ends_at_zero, level_histogram
from amct_lite.codebook.cluster_rows import cluster_rows
from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.lookup import levels_to_keep
from amct_lite.codebook.weight_nuq import cluster_weight
from amct_lite.errors import CalibrationError, ParameterError
from amct_lite.files.config import (
    ArqParams,
    AutoParams,
    FloatActivationParams,
    FloatWeightParams,
    NuqActivationParams,
    NuqParams,
)
from amct_lite.files.range_file import RangeChoice
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.joint import join_grids
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.range_choice import RangeKey, choose_on_histogram, range_groups
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.types import Grid
from amct_lite.uniform.arq import weight_scales
from amct_lite.uniform.bias import raise_scales_for_bias
from amct_lite.uniform.grid import grid_from_range
from amct_lite.uniform.mse_scales import mse_scales

__all__ = ["activation_grid", "activation_levels", "make_records"]

_logger = logging.getLogger(__name__)


def make_records(
    model: Model,
    plans: Sequence[LayerPlan],
    statistics: Statistics,
    choices: Mapping[RangeKey, RangeChoice] | None = None,
    *,
    fakequant_precision_mode: str = "DEFAULT",
) -> dict[str, LayerRecord]:
    """Find the factors of every layer that the plan quantizes.

    Args:
        model: The float model.
        plans: What is done to each layer.
        statistics: What calibration saw.
        choices: The ranges that "auto" chose with samples; by the histogram where there are none.
        fakequant_precision_mode: The config's.

    Returns:
        Layer name -> factors, in graph order.

    Raises:
        CalibrationError: A layer's tensor was never seen, or its values have no usable range.
    """
    enabled = [plan for plan in plans if plan.config is not None]
    chosen = _range_choices(enabled, statistics, choices or {})
    grids = {
        plan.layer.name: activation_grid(plan, statistics, chosen.get(plan.layer.name))
        for plan in enabled
        if plan.quantizes_input
    }
    grids = join_grids([plan for plan in enabled if plan.quantizes_input], grids)
    weights = _weight_factors(model, [plan for plan in enabled if plan.codebook is None], grids)
    codebooks = _plain_codebooks(model, [plan for plan in enabled if plan.codebook is not None])
    records = {}
    for plan in enabled:
        name, grid = plan.layer.name, grids.get(plan.layer.name)
        _logger.info("Use %d batch to do layer %s data calibration.", statistics.batches, name)
        found = weights.get(name, _NO_WEIGHT)
        records[name] = LayerRecord(
            scale_d=None if grid is None else grid.scale,
            offset_d=0 if grid is None else grid.offset,
            scale_w=tuple(map(float, found.scales)),
            offset_w=(0,) * found.scales.size,
            cluster=found.levels,
            cluster_cost=found.costs,
            activation_cluster=() if grid is None else _activation_cluster(plan, grid, statistics),
            codebook=codebooks.get(name),
            float_weights=isinstance(plan.weight_params, FloatWeightParams),
            activation_bits=8 if grid is None else grid.num_bits,
            weight_bits=_weight_bits(plan),
            range_choice=chosen.get(name),
            tensor_balance_factor=model.balance_factors.get(name, ()),
            equalized=name in model.equalized_layers,
            skip_fusion=name in model.unfused_layers,
            fakequant_precision_mode=fakequant_precision_mode,
        )
        _logger.info("Do layer %s data calibration succeeded!", name)
    return records


def _weight_bits(plan: LayerPlan) -> int:
    """Width of a uniform weight's levels; 8 where the weight is none."""
    return plan.weight_params.num_bits if isinstance(plan.weight_params, ArqParams) else 8


def _plain_codebooks(model: Model, plans: Sequence[LayerPlan]) -> dict[str, Codebook]:
    """Codebooks chosen without data, for layers that `amct_lite.refine` does not choose with data later."""
    by_weight: dict[str, Codebook] = {}
    found = {}
    for plan in plans:
        layer, spec = plan.layer, plan.codebook
        assert spec is not None and layer.weight is not None
        if plan.refines_codebook:
            continue
        if layer.weight not in by_weight:
            by_weight[layer.weight] = cluster_rows(to_rows(model.weight(layer.weight), layer), spec)
        found[layer.name] = by_weight[layer.weight]
    return found


def _range_choices(
    plans: Sequence[LayerPlan], statistics: Statistics, choices: Mapping[RangeKey, RangeChoice]
) -> dict[str, RangeChoice]:
    """Layer name -> choice, for the layers with "auto"."""
    found: dict[str, RangeChoice] = {}
    for key, group in range_groups(plans).items():
        for plan in group:
            found[plan.layer.name] = choices[key] if key in choices else _choose_on_histogram(plan, statistics)
    return found


def _choose_on_histogram(plan: LayerPlan, statistics: Statistics) -> RangeChoice:
    try:
        return choose_on_histogram(plan, _seen(plan, statistics))
    except ParameterError as error:
        raise CalibrationError(error.cause, layer=plan.layer.name, remedy="Add the layer to skip_layers.") from error


def activation_grid(plan: LayerPlan, statistics: Statistics, choice: RangeChoice | None = None) -> Grid:
    """The uniform grid of a layer's activation, by the range algorithm that its config names.

    Args:
        plan: What is done to the layer.
        statistics: What calibration saw.
        choice: What "auto" chose; None for a choice by the histogram.
    """
    assert plan.config is not None
    params = plan.config.activation_quant_params
    if isinstance(params, FloatActivationParams):
        raise ParameterError(f"The input of layer {plan.layer.name!r} stays float: it has no grid.")
    snapshot = _seen(plan, statistics)
    if isinstance(params, AutoParams):
        clip = (choice or _choose_on_histogram(plan, statistics)).chosen.clip
        return grid_from_range(clip, num_bits=params.num_bits, with_offset=plan.with_offset)
    try:
        clip = RANGE_ALGORITHMS[params.act_algo](
            snapshot,
            num_bits=params.num_bits,
            with_offset=plan.with_offset,
            params=params.model_dump(exclude={"num_bits", "act_algo", "asymmetric", "nuq"}),
        )
        return grid_from_range(clip, num_bits=params.num_bits, with_offset=plan.with_offset)
    except ParameterError as error:
        raise CalibrationError(error.cause, layer=plan.layer.name, remedy="Add the layer to skip_layers.") from error


def _seen(plan: LayerPlan, statistics: Statistics) -> HistogramSnapshot:
    snapshot = statistics.snapshot(plan.layer)
    if snapshot.total == 0:
        raise CalibrationError(
            f"Its input {plan.layer.activation!r} had no values in any batch.",
            layer=plan.layer.name,
            remedy="Calibrate with data that reaches the layer, or add the layer to skip_layers.",
        )
    return snapshot


def activation_levels(
    plan: LayerPlan, grid: Grid, statistics: Statistics, params: NuqActivationParams
) -> npt.NDArray[np.int64]:
    """The levels that NUQ keeps of a layer's quantized activation, ascending.

    Args:
        plan: What is done to the layer.
        grid: The activation's grid.
        statistics: What calibration saw.
        params: How many levels to keep, and whether 0 must be one of them.
    """
    snapshot = statistics.histogram(plan.layer).snapshot()
    reserve = ends_at_zero(snapshot) if params.reserve_zero is None else params.reserve_zero
    return cluster_activation(
        level_histogram(snapshot, grid),
        levels_to_keep(params.target_compression_ratio),
        zero_level=grid.offset if reserve else None,
    )


def _activation_cluster(plan: LayerPlan, grid: Grid, statistics: Statistics) -> tuple[int, ...]:
    assert plan.config is not None
    nuq = plan.config.activation_quant_params.nuq
    return () if nuq is None else tuple(map(int, activation_levels(plan, grid, statistics, nuq)))


@dataclass(frozen=True)
class _WeightFactors:
    """Scales, and with NUQ the kept levels and their costs."""

    scales: npt.NDArray[np.float32]
    levels: tuple[int, ...] = ()
    costs: tuple[float, ...] = ()


_NO_WEIGHT = _WeightFactors(np.empty(0, np.float32))


def _weight_factors(model: Model, plans: Sequence[LayerPlan], grids: dict[str, Grid]) -> dict[str, _WeightFactors]:
    """Layer name -> factors of its weight; layers that share a weight share its factors."""
    groups: dict[str, list[LayerPlan]] = {}
    for plan in plans:
        if plan.layer.weight is not None and not isinstance(plan.weight_params, FloatWeightParams):
            groups.setdefault(plan.layer.weight, []).append(plan)
    factors = {}
    for weight_name, group in groups.items():
        try:
            shared = _group_factors(model, model.weight(weight_name), group, grids)
        except ParameterError as error:
            raise CalibrationError(
                error.cause, layer=group[0].layer.name, remedy="Add the layer to skip_layers."
            ) from error
        factors.update({plan.layer.name: shared for plan in group})
    return factors


def _group_factors(
    model: Model, weight: npt.NDArray[np.float32], group: Sequence[LayerPlan], grids: dict[str, Grid]
) -> _WeightFactors:
    params = group[0].weight_params
    axis = group[0].layer.output_channel_axis if group[0].channel_wise else None
    make = mse_scales if isinstance(params, ArqParams) and params.scale_algo == "mse" else weight_scales
    scales = make(weight, axis=axis, num_bits=_weight_bits(group[0]))
    if not isinstance(params, NuqParams):
        return _WeightFactors(_raise_for_biases(model, scales, group, grids))
    found = _clustered(weight, scales, axis, params, params.num_of_iteration)
    raised = _raise_for_biases(model, found.scales, group, grids)
    if raised is found.scales:
        return found
    # The re-fit would undo the raise, so the levels are chosen anew on the raised scales as they are.
    return _clustered(weight, raised, axis, params, 0)


def _clustered(
    weight: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    axis: int | None,
    params: NuqParams,
    num_of_iteration: int,
) -> _WeightFactors:
    clustered = cluster_weight(
        weight,
        scales,
        axis=axis,
        num_steps=params.num_steps,
        num_of_iteration=num_of_iteration,
        entropy_weight=params.entropy_weight,
    )
    return _WeightFactors(clustered.scales, tuple(map(int, clustered.levels)), clustered.costs)


def _raise_for_biases(
    model: Model, scales: npt.NDArray[np.float32], group: Sequence[LayerPlan], grids: dict[str, Grid]
) -> npt.NDArray[np.float32]:
    for plan in group:
        if plan.layer.bias is None or plan.layer.name not in grids:
            continue
        bias = model.weight(plan.layer.bias).reshape(-1)
        new_scales, raised = raise_scales_for_bias(bias, scales, grids[plan.layer.name].scale)
        if raised.any():
            _logger.warning(
                "Layer %r: Quantized bias would exceed int32 range in %d channel(s); their weight scales are raised.",
                plan.layer.name,
                int(raised.sum()),
            )
            scales = new_scales
    return scales
