"""The space of `accuracy_based_auto_calibration`: each layer as the config quantizes it, or rolled back to float."""

from collections.abc import Mapping, Sequence

from amct_lite.calibration.statistics import Statistics
from amct_lite.files.config import ArqParams, FloatActivationParams, LayerConfig, NuqParams
from amct_lite.files.record import LayerRecord
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.choices import Choice, Option, Unit
from amct_lite.search.config_problem import ConfigProblem
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.option_names import FLOAT, INT8, NUQ

__all__ = ["RollBackProblem", "roll_back_units"]

# An option's error of 0 would make rolling back look like no gain at all, and the strategy would never try it.
LEAST_ERROR = 1e-9

FLOAT_BITS = 32


class RollBackProblem(ConfigProblem):
    """A `Problem` whose choices switch layers off."""

    bytes_are = "of weights and of one sample's inputs, as the layers read them"

    def __init__(self, planned: PlannedGraph, units: Sequence[Unit], store: FactorStore) -> None:
        super().__init__(planned, units, store)
        self._between = {plan.layer.name for plan in planned.tensor_plans}

    @property
    def all_float(self) -> Choice:
        """Everything rolled back."""
        return tuple(len(unit.options) - 1 for unit in self.units)

    def rolled_back(self, choice: Choice) -> list[str]:
        """The layers that a choice rolls back, in graph order."""
        pairs = zip(self.units, choice, strict=True)
        names = {name for unit, index in pairs if unit.options[index].name == FLOAT for name in unit.layers}
        return [plan.layer.name for plan in self.planned.plans if plan.layer.name in names]

    def quantizes(self, choice: Choice) -> bool:
        """See `ConfigProblem`."""
        return any(unit.options[index].name != FLOAT for unit, index in zip(self.units, choice, strict=True))

    def blocks(self, choice: Choice) -> dict[str, LayerConfig]:
        """See `ConfigProblem`."""
        blocks = self.planned.config.layers
        off = {name: blocks[name].model_copy(update={"quant_enable": False}) for name in self.rolled_back(choice)}
        return {**blocks, **off}

    def has_seen(self, between: LayerPlan) -> bool:
        """See `ConfigProblem`; a new place for a quantizer, which a layer in float makes, stays without."""
        return between.layer.name in self._between


def roll_back_units(plans: Sequence[LayerPlan], store: FactorStore, errors: Mapping[str, float]) -> list[Unit]:
    """A unit for each layer that the plan quantizes; layers that share a weight are one.

    Args:
        plans: The user's plan.
        store: Factors over one calibration.
        errors: Layer name -> what quantizing it does, as a number to add up.
    """
    groups: dict[str, list[LayerPlan]] = {}
    for plan in plans:
        if plan.config is not None:
            groups.setdefault(plan.layer.weight or f"layer {plan.layer.name}", []).append(plan)
    records = store.records(plans)
    return [_unit(group, records[group[0].layer.name], store.statistics, errors) for group in groups.values()]


def _unit(group: Sequence[LayerPlan], record: LayerRecord, statistics: Statistics, errors: Mapping[str, float]) -> Unit:
    first = group[0]
    names = tuple(plan.layer.name for plan in group)
    weights = first.layer.num_weights
    has_integers = weights > 0 and bool(record.scale_w)
    quantized_bytes = weights + 4 * len(record.scale_w) if has_integers else 4 * weights
    float_bytes = 4 * weights
    for plan in group:
        if plan.quantizes_input:
            values = statistics.histogram(plan.layer).snapshot().total / max(statistics.samples, 1)
            quantized_bytes += round(values * _input_bits(plan) / 8)
            float_bytes += round(values * FLOAT_BITS / 8)
    error = max(sum(errors[name] for name in names), LEAST_ERROR)
    options = (Option(_name(first), quantized_bytes, error), Option(FLOAT, float_bytes, 0.0))
    return Unit(", ".join(names), "layer", names, options, quantized_bytes, weights)


def _input_bits(plan: LayerPlan) -> int:
    params = None if plan.config is None else plan.config.activation_quant_params
    return FLOAT_BITS if params is None or isinstance(params, FloatActivationParams) else params.num_bits


def _name(plan: LayerPlan) -> str:
    params = plan.weight_params
    if isinstance(params, NuqParams):
        return f"{NUQ}{params.num_steps}"
    if isinstance(params, ArqParams) and params.num_bits != 8:
        return f"uniform{params.num_bits}"
    return INT8
