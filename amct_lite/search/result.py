"""What a search gives back: the result as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_lite.export.summary import Summary

__all__ = ["SearchResult", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One evaluated candidate.

    Attributes:
        key: Digest of its config; "float" for the float model.
        size_bytes: Its bytes as a lossless compressor sees them.
        metric: What the evaluator returned.
        satisfied: What the evaluator said to it.
    """

    key: str
    size_bytes: int
    metric: float
    satisfied: bool


@dataclass(frozen=True)
class SearchResult:
    """The end of a search.

    Attributes:
        satisfied: Whether the saved model passes the user's test; False marks a best effort.
        original_metric: The float model's metric.
        metric: The saved model's metric.
        size_bytes: The saved model's weights (and clustered activations, per sample) after lossless compression.
        uniform_bytes: The same for plain int8 in every layer.
        config: The final config.
        trials: Every evaluation, the float model's first.
        files: Kind -> path of everything that was written.
        summary: The saved quantization in figures.
        message: The outcome in a sentence.
    """

    satisfied: bool
    original_metric: float
    metric: float
    size_bytes: int
    uniform_bytes: int
    config: Mapping[str, Any]
    trials: tuple[Trial, ...]
    files: Mapping[str, Path]
    summary: Summary
    message: str
