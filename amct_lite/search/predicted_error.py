"""What quantizing a layer adds at its output, as calibration's statistics predict it: no sample is run."""

from collections.abc import Mapping

import numpy as np

from amct_lite.calibration.ranges.squared_error import SquaredError
from amct_lite.calibration.statistics import Statistics
from amct_lite.codebook.activation_nuq import level_histogram
from amct_lite.codebook.lookup import level_table
from amct_lite.files.record import LayerRecord
from amct_lite.quantize.apply_record import quantize_layer
from amct_lite.quantize.importance import weight_importance
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.options import relative_error
from amct_lite.types import ClipRange, FloatArray

__all__ = ["predicted_errors"]


def predicted_errors(planned: PlannedGraph, store: FactorStore, records: Mapping[str, LayerRecord]) -> dict[str, float]:
    """Noise relative to signal at each quantized layer's output, for its weights and its input together.

    To first order the noise of the two adds up, and each passes the layer as the signal does.

    Args:
        planned: The network and its config.
        store: Its calibration.
        records: The factors of the quantized layers.
    """
    found = {}
    for plan in planned.plans:
        if plan.config is None:
            continue
        quantized = quantize_layer(store.model, plan.layer, records[plan.layer.name])
        found[plan.layer.name] = _weight_error(plan, quantized, store) + _input_error(plan, quantized, store.statistics)
    return found


def _weight_error(plan: LayerPlan, quantized: QuantizedLayer, store: FactorStore) -> float:
    if plan.layer.weight is None or not quantized.has_weight:
        return 0.0
    importance: FloatArray = np.ones(())
    if plan.quantizes_input:
        importance = weight_importance(plan.layer, store.statistics.mean_squares(plan.layer))
    return relative_error(store.model.weight(plan.layer.weight), quantized.decode_weight(), importance)


def _input_error(plan: LayerPlan, quantized: QuantizedLayer, statistics: Statistics) -> float:
    grid = quantized.grid
    if grid is None:
        return 0.0
    snapshot = statistics.histogram(plan.layer).snapshot()
    errors = SquaredError(snapshot, num_bits=grid.num_bits, with_offset=plan.with_offset)
    if errors.power <= 0.0:
        return 0.0
    clip = ClipRange((grid.q_min - grid.offset) * grid.scale, (grid.q_max - grid.offset) * grid.scale)
    noise = float(errors.of_ranges([clip])[0])
    if quantized.activation_levels is not None:
        points = np.arange(grid.q_min, grid.q_max + 1)
        table = level_table(np.array(quantized.activation_levels), quantized.activation_costs)
        moved = level_histogram(snapshot, grid) * np.square((points - table) * grid.scale, dtype=np.float64)
        noise += float(moved.sum())
    return noise / errors.power
