"""The space of a search over configs: a way to treat each weight, and a ratio for each clustered activation."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from amct_lite.export.save import ModelFiles
from amct_lite.files.config import QuantConfig
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.candidates import CandidateWriter
from amct_lite.search.choices import Choice, Unit, choice_bytes
from amct_lite.search.frontier import Frontier, build_frontier
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
        writer: Writes the models of choices.
    """

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
        self.planned, self.units, self._store = planned, units, store
        self.writer = CandidateWriter(planned)
        self._observed = frozenset(observed)
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
        _, records = self.plans_and_records(self.config(choice))
        return self.writer.write(self.writer.layers(records), folder)

    def frontier(self) -> Frontier:
        """The frontier of the choices in which at least one layer is quantized."""
        whole = build_frontier(self.units)
        return whole.only([self.quantizes(whole.choice(point)) for point in range(len(whole))])

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
        """The plans of a config's layers, and the factors of these and of what is quantized between them."""
        plans = make_plan(self.planned.model.layers, config, self.planned.target)
        # A float layer can leave a tensor between others that calibration, with all of them quantized, had no need of.
        between = replace(self.planned, config=config, plans=plans).tensor_plans
        observed = [plan for plan in between if plan.layer.activation in self._observed]
        return plans, self._store.records([*plans, *observed])


def config_key(config: QuantConfig) -> str:
    """Digest of a config: the key of its trial."""
    canonical = json.dumps(config.to_document(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
