"""What a search gives back: the result as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from amct_lite.export.summary import Summary

__all__ = ["SearchResult", "Stop", "Trial", "pareto_front"]


class Stop(StrEnum):
    """Why a search ended."""

    DONE = "done"
    TIME = "max_seconds"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Trial:
    """One evaluated candidate.

    Attributes:
        key: Digest of its config; "float" for the float model.
        options: The name of the option of each unit, as in the result's `units`; none for the float model.
        size_bytes: Its bytes, as the search counts them.
        metric: What the evaluator returned.
        satisfied: What the evaluator said to it.
    """

    key: str
    options: tuple[str, ...]
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
        size_bytes: The saved model's weights (and clustered activations, per sample), as the search counts bytes.
        uniform_bytes: The same for plain int8 in every layer.
        config: The final config.
        units: What was chosen: names of weights and activation tensors.
        trials: Every evaluation that the result depends on, the float model's first.
        front: The trials that no other one beats in bytes and in metric, the smallest first.
        stop: Why the search ended.
        outlook: What a larger budget would be spent on; empty where nothing was left to gain.
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
    units: tuple[str, ...]
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    stop: Stop
    outlook: str
    files: Mapping[str, Path]
    summary: Summary
    message: str


def pareto_front(trials: Sequence[Trial], *, greater_is_better: bool) -> tuple[Trial, ...]:
    """The trials that no other one beats in bytes and in metric, the smallest first.

    Example:
        >>> points = [Trial("a", (), 10, 0.5, True), Trial("b", (), 20, 0.4, True), Trial("c", (), 30, 0.9, True)]
        >>> [trial.key for trial in pareto_front(points, greater_is_better=True)]
        ['a', 'c']
    """
    sign = -1.0 if greater_is_better else 1.0
    found: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.size_bytes, sign * t.metric)):
        if not found or sign * trial.metric < sign * found[-1].metric:
            found.append(trial)
    return tuple(found)
