"""Units and options of an automatic NUQ search: what each way to treat a layer costs in bytes and in error."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.activation_nuq import level_histogram
from amct_lite.codebook.entropy import entropy_bits
from amct_lite.codebook.lookup import nearest_level_table
from amct_lite.files.config import AutoNuqOptions, FloatWeightParams
from amct_lite.files.target import Target
from amct_lite.quantize.apply_record import quantize_layer
from amct_lite.quantize.factors import activation_grid, activation_levels
from amct_lite.quantize.importance import weight_importance
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.search.choices import Option, Unit, efficient_options
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.option_names import FLOAT, INT8, NUQ, weight_params
from amct_lite.types import FloatArray, Technique

__all__ = ["build_units", "coded_weight_bytes", "relative_error"]


def build_units(plans: Sequence[LayerPlan], store: FactorStore, target: Target, options: AutoNuqOptions) -> list[Unit]:
    """Every unit of choice with its options.

    Args:
        plans: The user's plan; layers that it leaves float are no units.
        store: Factors over one calibration.
        target: Which layers NUQ may touch.
        options: Level counts and ratios to try.
    """
    by_weight: dict[str, list[LayerPlan]] = {}
    by_tensor: dict[str, list[LayerPlan]] = {}
    for plan in plans:
        if plan.config is None:
            continue
        if plan.layer.weight is not None and not isinstance(plan.weight_params, FloatWeightParams):
            by_weight.setdefault(plan.layer.weight, []).append(plan)
        if plan.config.activation_quant_params.nuq is not None:
            by_tensor.setdefault(plan.layer.activation, []).append(plan)
    units = [_weight_unit(group, store, target, options) for group in by_weight.values()]
    units += [_activation_unit(group, store, options) for group in by_tensor.values()]
    return units


def _weight_unit(group: Sequence[LayerPlan], store: FactorStore, target: Target, options: AutoNuqOptions) -> Unit:
    clusterable = all(target.refusal(plan.layer, Technique.NUQ) is None for plan in group)
    uniform = _weight_option(group, store, INT8)
    clustered = [_weight_option(group, store, f"{NUQ}{n}") for n in sorted(set(options.num_steps)) if clusterable]
    in_float = Option(FLOAT, 4 * group[0].layer.num_weights, 0.0)
    names = tuple(plan.layer.name for plan in group)
    efficient = efficient_options([uniform, *clustered, in_float])
    return Unit(
        f"weight of {', '.join(names)}", "weight", names, efficient, uniform.size_bytes, group[0].layer.num_weights
    )


def _weight_option(group: Sequence[LayerPlan], store: FactorStore, name: str) -> Option:
    changed = []
    for plan in group:
        assert plan.config is not None
        config = plan.config.model_copy(update={"weight_quant_params": weight_params(plan, name)})
        changed.append(LayerPlan(plan.layer, config, None, plan.channel_wise, plan.with_offset))
    records = store.records(changed)
    layer = group[0].layer
    assert layer.weight is not None
    quantized = quantize_layer(store.model, layer, records[layer.name])
    weight = store.model.weight(layer.weight)
    # Layers that share a weight each feel its error.
    error = sum(
        relative_error(
            weight,
            quantized.decode_weight(),
            weight_importance(p.layer, store.statistics.mean_squares(p.layer)),
        )
        for p in group
    )
    return Option(name, coded_weight_bytes(quantized), error)


def coded_weight_bytes(quantized: QuantizedLayer) -> int:
    """What an int8 weight takes after ideal lossless coding, and its scales."""
    assert quantized.weight is not None
    coded_bits = quantized.layer.num_weights * entropy_bits(quantized.weight)
    return int(np.ceil(coded_bits / 8)) + 4 * quantized.scale_w.size


def relative_error(weight: FloatArray, decoded: FloatArray, importance: FloatArray) -> float:
    """Noise of a decoded weight at its layer's output, relative to the signal there."""
    signal = float(np.sum(np.square(weight, dtype=np.float64) * importance))
    noise = float(np.sum(np.square(weight - decoded, dtype=np.float64) * importance))
    return noise / signal if signal > 0 else 0.0


def _activation_unit(group: Sequence[LayerPlan], store: FactorStore, options: AutoNuqOptions) -> Unit:
    plan = group[0]
    assert plan.config is not None
    asked = plan.config.activation_quant_params.nuq
    assert asked is not None
    grid = activation_grid(plan, store.statistics)
    counts = level_histogram(store.statistics.histogram(plan.layer).snapshot(), grid)
    points = np.arange(grid.q_min, grid.q_max + 1)
    per_sample = float(counts.sum()) / max(store.statistics.samples, 1)
    signal = float(np.sum(counts * np.square(points - grid.offset, dtype=np.float64)))
    uniform = Option(INT8, _coded_bytes(counts, per_sample), 0.0)
    clustered = []
    for ratio in sorted(set(options.target_compression_ratio)):
        params = asked.model_copy(update={"target_compression_ratio": ratio})
        table = nearest_level_table(activation_levels(plan, grid, store.statistics, params))
        noise = float(np.sum(counts * np.square(points - table, dtype=np.float64)))
        kept_counts = np.bincount(table - grid.q_min, weights=counts, minlength=points.size)
        error = len(group) * noise / signal if signal > 0 else 0.0
        clustered.append(Option(str(ratio), _coded_bytes(kept_counts, per_sample), error))
    names = tuple(p.layer.name for p in group)
    efficient = efficient_options([uniform, *clustered])
    return Unit(f"activation {plan.layer.activation}", "activation", names, efficient, uniform.size_bytes)


def _coded_bytes(counts: npt.NDArray[Any], per_sample: float) -> int:
    """Bytes of one sample's tensor after ideal lossless coding of its levels."""
    shares = counts[counts > 0] / counts.sum()
    return int(np.ceil(per_sample * float(-(shares * np.log2(shares)).sum()) / 8))
