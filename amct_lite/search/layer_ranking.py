"""Which layers quantization hurts most: a sensitivity for each, measured on samples or predicted by statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from amct_lite.calibration.feeds import Feed
from amct_lite.errors import ParameterError
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.output_similarity import OutputSimilarity, output_similarities
from amct_lite.search.predicted_error import predicted_errors

__all__ = ["LayerRanking", "Sensitivity", "rank_layers", "sensitivity_of"]


class Sensitivity(StrEnum):
    """What layers are ranked by."""

    COSINE = "CosineSimilarity"
    RELATIVE_MSE = "MSE"
    MSE = "MSE without normalization"


@dataclass(frozen=True)
class LayerRanking:
    """Layers by sensitivity.

    Attributes:
        sensitivity: What they are ranked by.
        values: Layer name -> its sensitivity, the most sensitive first: cosines ascending, errors descending.
        errors: Layer name -> the same as a number that grows with the harm: what strategies add up.
        measured: Whether samples were run; False where statistics stand for them.
    """

    sensitivity: Sensitivity
    values: dict[str, float]
    errors: dict[str, float]
    measured: bool


def sensitivity_of(given: Any, default: Sensitivity) -> Sensitivity:
    """The sensitivity that a user's parameter stands for: a name, an object of AMCT's classes, or None.

    Raises:
        ParameterError: It is none of these.
    """
    if given is None:
        return default
    name = getattr(given, "name", given)
    names = (Sensitivity.COSINE, Sensitivity.RELATIVE_MSE)
    if name not in names:
        raise ParameterError(
            "The 'sensitivity' parameter of accuracy_based_auto_calibration must be None or one of"
            f" {', '.join(names)}. Got {given!r} instead."
        )
    found = Sensitivity(name)
    absolute = found is Sensitivity.RELATIVE_MSE and getattr(given, "do_normalization", True) is False
    return Sensitivity.MSE if absolute else found


def rank_layers(
    sensitivity: Sensitivity, planned: PlannedGraph, store: FactorStore, feeds: Sequence[Feed]
) -> LayerRanking:
    """Rank the layers that the config quantizes.

    Args:
        sensitivity: What by.
        planned: The network and its config.
        store: Its calibration.
        feeds: Samples; where there are none the statistics stand for them: noise that has nothing to do with the
            signal, e times its power, gives a cosine of 1 / sqrt(1 + e).
    """
    records = store.records(planned.plans)
    predicted = predicted_errors(planned, store, records)
    found = {name: _implied(error) for name, error in predicted.items()}
    if feeds:
        found |= output_similarities(store.model, quantized_layers(store.model, records), feeds)
    errors = {name: _error(similarity, sensitivity) for name, similarity in found.items()}
    ascending = sorted(errors, key=lambda name: -errors[name])
    cosine = sensitivity is Sensitivity.COSINE
    values = {name: found[name].cosine if cosine else errors[name] for name in ascending}
    return LayerRanking(sensitivity, values, errors, measured=bool(feeds))


def _implied(error: float) -> OutputSimilarity:
    return OutputSimilarity(0.5 + 0.5 / math.sqrt(1.0 + error), error, error)


def _error(similarity: OutputSimilarity, sensitivity: Sensitivity) -> float:
    if sensitivity is Sensitivity.COSINE:
        return 1.0 - similarity.cosine
    return similarity.mse if sensitivity is Sensitivity.MSE else similarity.relative_mse
