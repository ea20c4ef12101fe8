"""Why `act_algo: "auto"` took the ranges that it took: `{record}.ranges.json` beside the record.

The record holds all that quantization needs; this file only explains it. So one that belongs to another record is
passed over, and none is no error.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amct_lite.errors import FileError
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.json_document import read_json_object
from amct_lite.types import ClipRange

__all__ = ["RangeCandidate", "RangeChoice", "range_file", "read_ranges", "write_ranges"]

LAYER_OUTPUT = "layer output"
HISTOGRAM = "histogram"


@dataclass(frozen=True)
class RangeCandidate:
    """A range that was measured.

    Attributes:
        algorithms: The range algorithms that found it.
        clip: The range.
        error: Noise over signal by the choice's measure.
    """

    algorithms: tuple[str, ...]
    clip: ClipRange
    error: float


@dataclass(frozen=True)
class RangeChoice:
    """How the range of one tensor was chosen; `print` it to read why.

    Attributes:
        tensor: The tensor.
        layers: The layers that read it on this grid.
        num_bits: Width of its levels.
        with_offset: Whether its grid has an offset.
        measure: "layer output": the mean squared error of the layers' outputs on calibration samples, relative to
            the outputs and summed over the layers; "histogram": the tensor's own squared error, where no samples
            were at hand (inside a user's loop, and in a search).
        candidates: What was measured, the best first.
    """

    tensor: str
    layers: tuple[str, ...]
    num_bits: int
    with_offset: bool
    measure: str
    candidates: tuple[RangeCandidate, ...]

    @property
    def chosen(self) -> RangeCandidate:
        """The candidate with the least error."""
        return self.candidates[0]

    def __str__(self) -> str:
        kind = "asymmetric" if self.with_offset else "symmetric"
        measured = "at the output of " + ", ".join(self.layers)
        if self.measure == HISTOGRAM:
            measured = "of the tensor itself, by its histogram: there were no samples to run the layers on"
        lines = [f"{self.tensor}, {self.num_bits} bits, {kind}: {self.chosen.algorithms[0]}; noise / signal {measured}"]
        lines += [
            f"  {candidate.error:.3e}  [{candidate.clip.low:.6g}, {candidate.clip.high:.6g}]"
            f"  {', '.join(candidate.algorithms)}"
            for candidate in self.candidates
        ]
        return "\n".join(lines)

    def to_document(self) -> dict[str, Any]:
        """The choice as JSON."""
        return {
            **{name: value for name, value in asdict(self).items() if name != "candidates"},
            "candidates": [
                {"algorithms": list(each.algorithms), "low": each.clip.low, "high": each.clip.high, "error": each.error}
                for each in self.candidates
            ],
        }


def range_file(record_file: Path) -> Path:
    """Where the explanation of a record is."""
    return record_file.with_name(f"{record_file.name}.ranges.json")


def write_ranges(path: Path, choices: Mapping[str, RangeChoice], record_digest: str) -> None:
    """Write layer name -> choice, for one record."""
    document = {
        "version": 1,
        "record": record_digest,
        "layers": {name: choice.to_document() for name, choice in choices.items()},
    }
    write_text_atomically(path, json.dumps(document, indent=1) + "\n")


def read_ranges(path: Path, record_digest: str) -> dict[str, RangeChoice]:
    """Read layer name -> choice; empty where the file is missing or explains another record.

    Raises:
        FileError: It cannot be read.
    """
    if not path.exists():
        return {}
    document = read_json_object(path, "ranges file")
    if document.get("record") != record_digest:
        return {}
    try:
        return {name: _from_document(entry) for name, entry in document["layers"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"The ranges file {path} is damaged: {error!r}.", remedy="Delete it: it only explains the record."
        ) from error


def _from_document(entry: Mapping[str, Any]) -> RangeChoice:
    candidates = tuple(
        RangeCandidate(
            tuple(each["algorithms"]), ClipRange(float(each["low"]), float(each["high"])), float(each["error"])
        )
        for each in entry["candidates"]
    )
    return RangeChoice(
        tensor=str(entry["tensor"]),
        layers=tuple(entry["layers"]),
        num_bits=int(entry["num_bits"]),
        with_offset=bool(entry["with_offset"]),
        measure=str(entry["measure"]),
        candidates=candidates,
    )
