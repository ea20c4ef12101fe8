"""The space of `auto_nuq`: a way to treat each weight, and a ratio for each clustered activation."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from amct_lite.files.config import LayerConfig, QuantConfig
from amct_lite.files.record import LayerRecord
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.choices import Choice, Unit
from amct_lite.search.config_problem import ConfigProblem, RecordStore
from amct_lite.search.option_names import FLOAT, layer_config

__all__ = ["NuqProblem"]


class NuqProblem(ConfigProblem):
    """A `Problem` whose choices set the weights' and the activations' levels."""

    def __init__(
        self,
        planned: PlannedGraph,
        units: Sequence[Unit],
        store: RecordStore,
        *,
        bytes_are: str = "after lossless compression",
        storage: str | None = None,
        observed: Collection[str] = (),
    ) -> None:
        """Put a problem together.

        Args:
            planned: See the class.
            units: See the class.
            store: The factors of all options.
            bytes_are: See the class.
            storage: See the class.
            observed: The tensors that calibration saw; only these are quantized between layers.
        """
        super().__init__(planned, units, store)
        self._observed = frozenset(observed)
        self.bytes_are, self.storage = bytes_are, storage
        self._plans = {plan.layer.name: plan for plan in planned.plans}

    def quantizes(self, choice: Choice) -> bool:
        """See `ConfigProblem`."""
        chosen = {name for unit in self.units if unit.kind == "weight" for name in unit.layers}
        if any(p.config is not None and p.layer.name not in chosen for p in self.planned.plans):
            return True
        pairs = zip(self.units, choice, strict=True)
        return any(u.kind == "weight" and u.options[i].name != FLOAT for u, i in pairs)

    def plans_and_records(self, config: QuantConfig) -> tuple[tuple[LayerPlan, ...], dict[str, LayerRecord]]:
        """The plans of a config's layers, and the factors of these and of what is quantized between them."""
        plans = make_plan(self.model.layers, config, self.planned.target)
        # A float layer can leave a tensor between others that calibration, with all of them quantized, had no need of.
        between = replace(self.planned, config=config, plans=plans).tensor_plans
        observed = [plan for plan in between if plan.layer.activation in self._observed]
        return plans, self._store.records([*plans, *observed])

    def blocks(self, choice: Choice) -> dict[str, LayerConfig]:
        """See `ConfigProblem`."""
        blocks = self.planned.config.layers
        for unit, index in zip(self.units, choice, strict=True):
            name = unit.options[index].name
            blocks.update({n: layer_config(blocks[n], self._plans[n], unit.kind, name) for n in unit.layers})
        return blocks
