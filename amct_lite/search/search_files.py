"""Where a search writes what: the names differ by verb, and are AMCT's where AMCT has such a file."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["SearchFiles", "auto_calibration_files", "auto_nuq_files"]

AUTO_CALIBRATION = "accuracy_based_auto_calibration"


@dataclass(frozen=True)
class SearchFiles:
    """The files of one search.

    Attributes:
        folder: Where the models go, too.
        prefix: What the models' names start with.
        config: The config that won.
        journal: Every evaluation.
        result: The outcome and all trials.
        statistics: What the evaluator's own run over the calibration model showed.
        samples: The first batches of that run; None for a search that measures nothing on samples.
        ranking: Layers by sensitivity; None for a search that writes none.
    """

    folder: Path
    prefix: str
    config: Path
    journal: Path
    result: Path
    statistics: Path
    samples: Path | None = None
    ranking: Path | None = None


def auto_nuq_files(folder: Path, stem: str) -> SearchFiles:
    """The files of `auto_nuq` for a network's file of that stem."""
    start = f"{stem}_auto_nuq"
    return SearchFiles(
        folder,
        stem,
        config=folder / f"{start}_config.json",
        journal=folder / f"{start}_journal.jsonl",
        result=folder / f"{start}_result.json",
        statistics=folder / f"{stem}_calibration_statistics.npz",
    )


def auto_calibration_files(folder: Path, stem: str) -> SearchFiles:
    """The files of `accuracy_based_auto_calibration` for a network's file of that stem."""
    return SearchFiles(
        folder,
        stem,
        config=folder / f"{AUTO_CALIBRATION}_final_config.json",
        journal=folder / f"{AUTO_CALIBRATION}_journal.jsonl",
        result=folder / f"{AUTO_CALIBRATION}_result.json",
        statistics=folder / f"{AUTO_CALIBRATION}_statistics.npz",
        samples=folder / f"{AUTO_CALIBRATION}_samples.npz",
        ranking=folder / f"{AUTO_CALIBRATION}_ranking_information.json",
    )
