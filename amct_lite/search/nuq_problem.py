"""The space of `auto_nuq`: int8, level counts and float for each weight, ratios for clustered activations."""

from collections.abc import Sequence

from amct_lite.files.config import LayerConfig
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.choices import Choice, Unit
from amct_lite.search.config_problem import ConfigProblem
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.option_names import FLOAT, layer_config

__all__ = ["NuqProblem"]


class NuqProblem(ConfigProblem):
    """A `Problem` whose choices set the weights' and the activations' levels."""

    bytes_are = "after lossless compression"

    def __init__(self, planned: PlannedGraph, units: Sequence[Unit], store: FactorStore) -> None:
        super().__init__(planned, units, store)
        self._plans = {plan.layer.name: plan for plan in planned.plans}

    def quantizes(self, choice: Choice) -> bool:
        """See `ConfigProblem`."""
        chosen = {name for unit in self.units if unit.kind == "weight" for name in unit.layers}
        if any(p.config is not None and p.layer.name not in chosen for p in self.planned.plans):
            return True
        pairs = zip(self.units, choice, strict=True)
        return any(u.kind == "weight" and u.options[i].name != FLOAT for u, i in pairs)

    def blocks(self, choice: Choice) -> dict[str, LayerConfig]:
        """See `ConfigProblem`."""
        blocks = self.planned.config.layers
        for unit, index in zip(self.units, choice, strict=True):
            name = unit.options[index].name
            blocks.update({n: layer_config(blocks[n], self._plans[n], unit.kind, name) for n in unit.layers})
        return blocks
