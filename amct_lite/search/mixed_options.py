"""Units of a mixed-precision search: for every way that the config offers, a layer's factors, its bytes and its error.

Each option is worked out once, before the first evaluation, in one pass of the samples through the float network:
codebooks and uniform levels by error feedback on the layer's own inputs. Its error is what the layer's output loses,
tr(dW H dW') relative to that output's variance (as HAWQ-V2 weighs perturbations: Dong et al. 2020, arXiv 1911.03852,
equation 9, with the layer's own second moments H for the Hessian), times how much of such an error the network's
output shows: measured once a layer by changing that layer alone. No evaluator is needed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.statistics import Statistics
from amct_lite.codebook.least_squares import output_power
from amct_lite.codebook.second_moments import mean_of
from amct_lite.errors import ConfigError
from amct_lite.export.storage import Storage, stored_weight_bytes
from amct_lite.files.config import QuantConfig
from amct_lite.files.record import LayerRecord
from amct_lite.quantize.apply_record import quantize_layer
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.moments import fold_moments
from amct_lite.refine.output_change import OutputChange
from amct_lite.refine.samples import Feed
from amct_lite.refine.stream import Stream
from amct_lite.refine.weight_fitting import Folds, WeightFitter
from amct_lite.search.choices import Option, Unit, efficient_options
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.option_names import FLOAT, layer_config, technique
from amct_lite.search.options import coded_weight_bytes
from amct_lite.types import Grid, Layer
from amct_lite.uniform.grid import dequantize, quantize

__all__ = ["MixedStore", "build_mixed_units", "searches_mixed"]

# Samples on which a layer's share in the network's output is measured: every metric corrects it later.
COMPARED_SAMPLES = 16

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]


class MixedStore:
    """The factors of every option of every layer; those of other layers as the config has them."""

    def __init__(self, others: FactorStore) -> None:
        self._others = others
        self._known: dict[tuple[str, str], LayerRecord] = {}

    def add(self, plan: LayerPlan, record: LayerRecord) -> None:
        """Remember the factors of a layer under one option."""
        self._known[_key(plan)] = record

    def records(self, plans: Sequence[LayerPlan]) -> dict[str, LayerRecord]:
        """The factors of every layer that the plans quantize, in graph order."""
        enabled = [plan for plan in plans if plan.config is not None]
        unknown = [plan for plan in enabled if _key(plan) not in self._known]
        others = self._others.records(unknown)
        return {p.layer.name: self._known.get(_key(p)) or others[p.layer.name] for p in enabled}


def _key(plan: LayerPlan) -> tuple[str, str]:
    assert plan.config is not None
    return plan.layer.name, plan.config.model_dump_json(exclude={"search_space"})


def searches_mixed(config: QuantConfig) -> bool:
    """Whether a config asks for a search over ways to treat weights, not only over level counts."""
    return config.search_space is not None or any(block.search_space for block in config.layers.values())


def build_mixed_units(
    planned: PlannedGraph,
    statistics: Statistics,
    feeds: Sequence[Feed],
    *,
    progress: Progress | None = None,
) -> tuple[list[Unit], MixedStore]:
    """Every weight with its options, and the factors of all of them.

    Args:
        planned: The graph; layers that its config leaves float are no units.
        statistics: Of the inputs that are quantized.
        feeds: Calibration samples.
        progress: Called with (what is done, layers done, layers in all).

    Raises:
        ConfigError: A layer is left without options.
    """
    worker = _OptionBuilder(planned, statistics, feeds)
    groups: dict[str, list[LayerPlan]] = {}
    for plan in planned.plans:
        if plan.layer.weight is not None and worker.offered.get(plan.layer.name):
            groups.setdefault(plan.layer.weight, []).append(plan)
    units = []
    for number, group in enumerate(groups.values()):
        units.append(worker.unit(group))
        if progress is not None:
            progress("weighing options", number + 1, len(groups))
    return units, worker.store


class _OptionBuilder:
    """Works options out, weight by weight.

    Attributes:
        store: The factors of those that were worked out.
        offered: Layer -> the options that it may have.
    """

    def __init__(self, planned: PlannedGraph, statistics: Statistics, feeds: Sequence[Feed]) -> None:
        self.store = MixedStore(FactorStore(planned.model, statistics))
        self._planned, self._statistics = planned, statistics
        self._model = planned.model
        self._blocks = planned.config.layers
        self._nodes = {node.name: node for node in self._model.ir.graph}
        self._stream = Stream(self._model.ir, feeds)
        self._change = OutputChange(self._model, feeds, max_samples=COMPARED_SAMPLES)
        self.offered = {
            plan.layer.name: self._offered(plan)
            for plan in planned.plans
            if plan.config is not None and plan.layer.weight is not None
        }
        self._plans = {name: self._plans_under(name) for name in self._all_names()}
        self._folds: dict[tuple[str, Grid | None], Folds] = {}

    def unit(self, group: Sequence[LayerPlan]) -> Unit:
        """The unit of one weight, whose factors go to the store."""
        layer = group[0].layer
        self._stream.advance(layer.name)
        self._folds.clear()
        offered = [self.offered[plan.layer.name] for plan in group]
        shared = [name for name in offered[0] if all(name in names for names in offered)]
        quantized = {name: found for name in shared if name != FLOAT and (found := self._quantized(group, name))}
        share = self._shown_share(layer, quantized)
        options = [
            Option(name, self._size_bytes(found[0]), share * sum(self._error(each) for each in found))
            for name, found in quantized.items()
        ]
        if FLOAT in shared:
            options.append(Option(FLOAT, 4 * layer.num_weights, 0.0))
        if not options:
            raise ConfigError(
                f'None of {", ".join(shared)} makes it smaller, and "float" is not offered.',
                layer=layer.name,
                remedy='Add "float" to its search_space.',
            )
        names = tuple(plan.layer.name for plan in group)
        # One byte a weight and a scale an output channel.
        uniform_bytes = layer.num_weights + 4 * layer.weight_shape[layer.output_channel_axis]
        kept = efficient_options(options)
        return Unit(f"weight of {', '.join(names)}", "weight", names, kept, uniform_bytes, layer.num_weights)

    def _offered(self, plan: LayerPlan) -> list[str]:
        """The options that the config offers a layer and the target allows."""
        block = self._blocks[plan.layer.name]
        names = block.search_space or self._planned.config.search_space or []
        allowed = []
        for name in dict.fromkeys(names):
            needed = technique(name)
            if needed is None or self._planned.target.refusal(plan.layer, needed) is None:
                allowed.append(name)
        if names and not allowed:
            raise ConfigError(
                f"The target {self._planned.target.name!r} allows none of {', '.join(names)}.",
                layer=plan.layer.name,
                remedy='Add "int8" or "float" to its search_space, or set another target.',
            )
        return allowed

    def _all_names(self) -> list[str]:
        spaces = [self._planned.config.search_space or [], *(b.search_space or [] for b in self._blocks.values())]
        return [name for name in dict.fromkeys(name for space in spaces for name in space) if name != FLOAT]

    def _plans_under(self, name: str) -> dict[str, LayerPlan]:
        """Layer -> its plan under an option, for those that are offered it and would be smaller with it."""
        blocks = {}
        for plan in self._planned.plans:
            if name not in self.offered.get(plan.layer.name, ()):
                continue
            block = layer_config(self._blocks[plan.layer.name], plan, "weight", name)
            blocks[plan.layer.name] = block.model_dump(exclude_none=True)
        if not blocks:
            return {}
        document = self._planned.config.to_document()
        kept = {key: value for key, value in document.items() if key not in self._blocks}
        plans = make_plan(self._model.layers, QuantConfig.model_validate({**kept, **blocks}), self._planned.target)
        return {plan.layer.name: plan for plan in plans if plan.config is not None}

    def _quantized(self, group: Sequence[LayerPlan], name: str) -> list[QuantizedLayer]:
        """Each layer of a weight under an option; none where it would not be smaller."""
        plans = [self._plans[name][plan.layer.name] for plan in group if plan.layer.name in self._plans[name]]
        if len(plans) < len(group):
            return []
        records = make_records(self._model, plans, self._statistics)
        grids = {name: _grid_of(record) for name, record in records.items()}
        fitter = WeightFitter(
            self._model,
            self._node_of,
            lambda layer: self._input_pairs(layer, grids[layer.name]),
            lambda layer: self._folds_with(layer, grids[layer.name]),
            keeps_spread=False,
        )
        found = []
        for plan in plans:
            tied = [other for other in plans if other is not plan]
            record = records[plan.layer.name]
            if plan.uses_samples:
                record = fitter.fit(plan, record, tied)
            self.store.add(plan, record)
            found.append(quantize_layer(self._model, plan.layer, record))
        return found

    def _node_of(self, layer: Layer) -> Any:
        return self._nodes[layer.node_name]

    def _input_pairs(self, layer: Layer, grid: Grid | None) -> Iterator[tuple[Array, Array]]:
        for values in self._stream.tensor(layer.activation):
            seen = values if grid is None else dequantize(quantize(values, grid), grid).astype(np.float32)
            yield values, seen

    def _folds_with(self, layer: Layer, grid: Grid | None) -> Folds:
        key = layer.name, grid
        if key not in self._folds:
            inputs = LayerInputs.of_node(layer, self._node_of(layer))
            pairs = self._input_pairs(layer, grid)
            self._folds[key] = fold_moments(inputs, pairs, seed=self._model.layers.index(layer))
        return self._folds[key]

    def _error(self, quantized: QuantizedLayer) -> float:
        """The mean squared error at the layer's output, relative to that output's variance."""
        layer = quantized.layer
        floats, seen = (mean_of(self._folds_with(layer, grid)) for grid in (None, quantized.grid))
        groups = len(floats.quadratic)
        weight, decoded = (
            to_rows(values, layer).astype(np.float64).reshape(groups, -1, floats.quadratic.shape[-1])
            for values in (self._model.weight(layer.weight or ""), quantized.decode_weight())
        )
        signal = output_power(weight, floats.centred().quadratic)
        if quantized.float_bias is not None:
            # The bias was fitted, so that nothing is left of the means.
            floats, seen = floats.centred(), seen.centred()
        crossed = float(np.sum((weight @ seen.cross) * decoded))
        noise = output_power(weight, floats.quadratic) - 2 * crossed + output_power(decoded, seen.quadratic)
        return max(noise, 0.0) / signal if signal > 0.0 else 0.0

    def _shown_share(self, layer: Layer, quantized: Mapping[str, Sequence[QuantizedLayer]]) -> float:
        """How much the network's output changes, relative to the error at the layer's: by its coarsest option."""
        if not quantized:
            return 1.0
        coarsest = min((found[0] for found in quantized.values()), key=self._size_bytes)
        # With float inputs, as in the network that is changed.
        own = self._error(replace(coarsest, grid=None, float_bias=None))
        moved = self._change.of_weight(layer.weight or "", coarsest.decode_weight())
        return moved / own if own > 0.0 else 1.0

    def _size_bytes(self, quantized: QuantizedLayer) -> int:
        if self._planned.target.deploy_form == "qdq":
            return stored_weight_bytes(quantized, Storage.PACKED)
        return coded_weight_bytes(quantized)


def _grid_of(record: LayerRecord) -> Grid | None:
    """The grid of a layer's input; None where it stays float."""
    return None if record.scale_d is None else Grid(record.scale_d, record.offset_d, record.activation_bits)
