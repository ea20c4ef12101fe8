"""Records of many configs over one calibration: each group of layers is worked out once for each of its settings."""

from collections.abc import Sequence

from amct_lite.calibration.statistics import Statistics
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.layer_plan import LayerPlan

__all__ = ["FactorStore"]


class FactorStore:
    """Memoized `make_records`, group by group of layers that share a weight."""

    def __init__(self, model: Model, statistics: Statistics) -> None:
        self.model = model
        self.statistics = statistics
        self._known: dict[tuple[str, ...], dict[str, LayerRecord]] = {}

    def records(self, plans: Sequence[LayerPlan]) -> dict[str, LayerRecord]:
        """The factors of every layer that the plans quantize, in graph order."""
        groups: dict[str, list[LayerPlan]] = {}
        for plan in plans:
            if plan.config is not None:
                groups.setdefault(plan.layer.weight or plan.layer.name, []).append(plan)
        found: dict[str, LayerRecord] = {}
        for group in groups.values():
            found.update(self._group(group))
        return {plan.layer.name: found[plan.layer.name] for plan in plans if plan.config is not None}

    def _group(self, group: Sequence[LayerPlan]) -> dict[str, LayerRecord]:
        key = tuple(
            f"{plan.layer.name} {plan.with_offset} {plan.channel_wise} {plan.config.model_dump_json()}"
            for plan in group
            if plan.config is not None
        )
        if key not in self._known:
            self._known[key] = make_records(self.model, group, self.statistics)
        return self._known[key]
