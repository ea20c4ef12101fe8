"""What is searched over: units, and how a choice of their options becomes a model on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from amct_lite.export.save import ModelFiles
from amct_lite.graph.model import Model
from amct_lite.search.choices import Choice, Unit

__all__ = ["Problem"]


class Problem(Protocol):
    """A space of choices over one network."""

    @property
    def units(self) -> Sequence[Unit]:
        """What is chosen."""
        ...

    @property
    def model(self) -> Model:
        """The float model."""
        ...

    def key(self, choice: Choice) -> str:
        """Digest of the config that a choice stands for."""
        ...

    def size_bytes(self, choice: Choice) -> int:
        """What the search is to make small."""
        ...

    def write(self, choice: Choice, folder: Path) -> ModelFiles:
        """Write the model of a choice into an empty folder."""
        ...
