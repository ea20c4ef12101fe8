"""Problems whose choices are configs of one planned graph: from choice to config, plan, factors and model on disk."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from amct_lite.export.save import ModelFiles
from amct_lite.files.config import LayerConfig, QuantConfig
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.candidates import CandidateWriter
from amct_lite.search.choices import Choice, Unit, choice_bytes
from amct_lite.search.frontier import Frontier, build_frontier
from amct_lite.version import VERSION

__all__ = ["ConfigProblem", "RecordStore", "config_key", "search_keys"]


class RecordStore(Protocol):
    """Knows the factors of every layer under every option."""

    def records(self, plans: Sequence[LayerPlan]) -> dict[str, LayerRecord]:
        """The factors of every layer that the plans quantize, in graph order."""
        ...


class ConfigProblem(ABC):
    """A `Problem` over one planned graph and one calibration; a subclass says what config a choice stands for.

    Attributes:
        units: What is chosen.
        planned: The graph with the user's config.
        bytes_are: What the bytes of options are, for messages.
        writer: Writes the models of choices.
        storage: How the deploy model is to store weights, so that it has those bytes; None for the usual way.
    """

    bytes_are: str
    storage: str | None = None

    def __init__(self, planned: PlannedGraph, units: Sequence[Unit], store: RecordStore) -> None:
        self.planned, self.units, self._store = planned, units, store
        self.writer = CandidateWriter(planned)

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

    @abstractmethod
    def quantizes(self, choice: Choice) -> bool:
        """Whether at least one layer is quantized."""

    def config(self, choice: Choice) -> QuantConfig:
        """The config that a choice stands for."""
        rendered = {name: block.model_dump(exclude_none=True) for name, block in self.blocks(choice).items()}
        return QuantConfig.model_validate({**self.planned.config.to_document(), **rendered})

    @abstractmethod
    def blocks(self, choice: Choice) -> dict[str, LayerConfig]:
        """Each layer's block of that config."""

    def plans_and_records(self, config: QuantConfig) -> tuple[tuple[LayerPlan, ...], dict[str, LayerRecord]]:
        """The plans of a config's layers, and the factors of these and of what is quantized between them."""
        plans = make_plan(self.model.layers, config, self.planned.target)
        # A float layer can leave a tensor between others that calibration, with all of them quantized, had no need of.
        between = replace(self.planned, config=config, plans=plans).tensor_plans
        return plans, self._store.records([*plans, *(plan for plan in between if self.has_seen(plan))])

    @abstractmethod
    def has_seen(self, between: LayerPlan) -> bool:
        """Whether calibration knows enough of a tensor between layers for it to be quantized."""


def config_key(config: QuantConfig) -> str:
    """Digest of a config: the key of its trial."""
    canonical = json.dumps(config.to_document(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def search_keys(problem: ConfigProblem, data_digest: str, fingerprint: str) -> dict[str, str]:
    """All that the trials of a search depend on, for its journal.

    Args:
        problem: What is searched over.
        data_digest: Of what calibration saw.
        fingerprint: Of the user's test.
    """
    planned = problem.planned
    return {
        "model": planned.model.digest,
        "config": config_key(planned.config),
        "target": hashlib.sha256(planned.target.model_dump_json().encode()).hexdigest(),
        "calibration data": data_digest,
        "evaluator": fingerprint,
        "evaluated form": problem.writer.form,
        "amct_lite version": VERSION,
    }
