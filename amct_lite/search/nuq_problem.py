"""The space of `auto_nuq`: a way to treat each weight, and a ratio for each clustered activation."""

from collections.abc import Collection, Sequence

from amct_lite.files.config import LayerConfig
from amct_lite.quantize.layer_plan import LayerPlan
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
        chosen = {name for unit in units if unit.kind == "weight" for name in unit.layers}
        self._always_quantizes = any(p.config is not None and p.layer.name not in chosen for p in planned.plans)

    def quantizes(self, choice: Choice) -> bool:
        """See `ConfigProblem`."""
        if self._always_quantizes:
            return True
        pairs = zip(self.units, choice, strict=True)
        return any(u.kind == "weight" and u.options[i].name != FLOAT for u, i in pairs)

    def has_seen(self, between: LayerPlan) -> bool:
        """See `ConfigProblem`."""
        return between.layer.activation in self._observed

    def blocks(self, choice: Choice) -> dict[str, LayerConfig]:
        """See `ConfigProblem`."""
        blocks = self.planned.config.layers
        for unit, index in zip(self.units, choice, strict=True):
            name = unit.options[index].name
            blocks.update({n: layer_config(blocks[n], self._plans[n], unit.kind, name) for n in unit.layers})
        return blocks
