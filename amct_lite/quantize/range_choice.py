"""`act_algo: "auto"`: the ranges that the other algorithms find for a tensor, and the best of them by an error."""

from collections.abc import Iterable, Sequence

from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.calibration.ranges.squared_error import SquaredError
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.files.config import AutoParams
from amct_lite.files.range_file import HISTOGRAM, RangeCandidate, RangeChoice
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.types import ClipRange, Grid
from amct_lite.uniform.grid import grid_from_range

__all__ = ["RangeKey", "best_first", "choose_on_histogram", "range_candidates", "range_groups"]

RangeKey = tuple[str, int, bool]
"""Tensor, width, whether with offset: what layers that share a grid have in common."""


def range_groups(plans: Iterable[LayerPlan]) -> dict[RangeKey, list[LayerPlan]]:
    """The layers whose range is chosen by "auto", by what they share, in graph order."""
    groups: dict[RangeKey, list[LayerPlan]] = {}
    for plan in plans:
        params = None if plan.config is None else plan.config.activation_quant_params
        if isinstance(params, AutoParams):
            groups.setdefault((plan.layer.activation, params.num_bits, plan.with_offset), []).append(plan)
    return groups


def range_candidates(
    snapshot: HistogramSnapshot, *, num_bits: int, with_offset: bool
) -> list[tuple[tuple[str, ...], ClipRange]]:
    """What each range algorithm finds with its default parameters; one entry for those that give the same grid.

    Raises:
        ParameterError: A range needs a scale that devices cannot hold.
    """
    found: dict[Grid, tuple[list[str], ClipRange]] = {}
    for name, algorithm in RANGE_ALGORITHMS.items():
        clip = algorithm(snapshot, num_bits=num_bits, with_offset=with_offset, params={})
        grid = grid_from_range(clip, num_bits=num_bits, with_offset=with_offset)
        found.setdefault(grid, ([], clip))[0].append(name)
    return [(tuple(names), clip) for names, clip in found.values()]


def best_first(
    candidates: Sequence[tuple[tuple[str, ...], ClipRange]], errors: Sequence[float]
) -> tuple[RangeCandidate, ...]:
    """Candidates with their errors, ascending; of equal ones the first given comes first."""
    measured = [
        RangeCandidate(names, clip, float(error)) for (names, clip), error in zip(candidates, errors, strict=True)
    ]
    return tuple(sorted(measured, key=lambda candidate: candidate.error))


def choose_on_histogram(plan: LayerPlan, snapshot: HistogramSnapshot) -> RangeChoice:
    """The candidate with the least squared error of the tensor itself, for where there are no samples.

    Raises:
        ParameterError: A range needs a scale that devices cannot hold.
    """
    ((tensor, num_bits, with_offset),) = range_groups([plan])
    candidates = range_candidates(snapshot, num_bits=num_bits, with_offset=with_offset)
    error = SquaredError(snapshot, num_bits=num_bits, with_offset=with_offset)
    noise = error.of_ranges([clip for _, clip in candidates])
    signal = error.power or 1.0
    return RangeChoice(
        tensor, (plan.layer.name,), num_bits, with_offset, HISTOGRAM, best_first(candidates, (noise / signal).tolist())
    )
