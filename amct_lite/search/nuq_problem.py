"""The space of a search over configs: a way to treat each weight, and a ratio for each clustered activation."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from amct_lite.export.save import ModelFiles, fake_quant_form
from amct_lite.files.config import QuantConfig
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.choices import Choice, Unit, choice_bytes
from amct_lite.search.option_names import FLOAT, layer_config

__all__ = ["NuqProblem", "RecordStore", "config_key"]


class RecordStore(Protocol):
    """Knows the factors of every layer under every option."""

    def records(self, plans: Sequence[LayerPlan]) -> dict[str, LayerRecord]:
        """The factors of every layer that the plans quantize, in graph order."""
        ...


class NuqProblem:
    """A `Problem` whose choices are configs of one planned graph.

    Attributes:
        units: What is chosen.
        planned: The graph with the user's config.
        bytes_are: What the bytes of options are, for messages.
        storage: How the deploy model is to store weights, so that it has those bytes.
    """

    def __init__(
        self,
        planned: PlannedGraph,
        units: Sequence[Unit],
        store: RecordStore,
        *,
        bytes_are: str = "after lossless compression",
        storage: str | None = None,
    ) -> None:
        self.planned, self.units, self._store = planned, units, store
        self.bytes_are, self.storage = bytes_are, storage
        self._plans = {plan.layer.name: plan for plan in planned.plans}

    @property
    def model(self) -> Model:
        """See `Problem`."""
        return self.planned.model

    def key(self, choice: Choice) -> str:
        """See `Problem`."""
        return config_key(self.config(choice))

    def size_bytes(self, choice: Choice) -> int:
        """See `Problem`."""
        return choice_bytes(self.units, choice)

    def write(self, choice: Choice, folder: Path) -> ModelFiles:
        """See `Problem`."""
        plans = make_plan(self.planned.model.layers, self.config(choice), self.planned.target)
        layers = quantized_layers(self.planned.model, self._store.records(plans))
        form = fake_quant_form(self.planned, layers, folder, "candidate_")
        form.write()
        beside = set(folder.iterdir()) - set(form.files.all_files)
        return replace(form.files, external=tuple(sorted(beside)))

    def quantizes(self, choice: Choice) -> bool:
        """Whether at least one layer is quantized."""
        chosen = {name for unit in self.units if unit.kind == "weight" for name in unit.layers}
        if any(p.config is not None and p.layer.name not in chosen for p in self.planned.plans):
            return True
        pairs = zip(self.units, choice, strict=True)
        return any(u.kind == "weight" and u.options[i].name != FLOAT for u, i in pairs)

    def config(self, choice: Choice) -> QuantConfig:
        """The config that a choice stands for."""
        blocks = self.planned.config.layers
        for unit, index in zip(self.units, choice, strict=True):
            name = unit.options[index].name
            blocks.update({n: layer_config(blocks[n], self._plans[n], unit.kind, name) for n in unit.layers})
        rendered = {name: block.model_dump(exclude_none=True) for name, block in blocks.items()}
        return QuantConfig.model_validate({**self.planned.config.to_document(), **rendered})

    def plans_and_records(self, config: QuantConfig) -> tuple[tuple[LayerPlan, ...], dict[str, LayerRecord]]:
        """The plans of a config, and their factors."""
        plans = make_plan(self.planned.model.layers, config, self.planned.target)
        return plans, self._store.records(plans)


def config_key(config: QuantConfig) -> str:
    """Digest of a config: the key of its trial."""
    canonical = json.dumps(config.to_document(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
