"""entropy: the range whose quantized distribution diverges least from the observed one, by Kullback and Leibler.

Source: Migacz 2017, "8-bit Inference with TensorRT", NVIDIA GTC 2017, pages 28 to 38: the reference distribution has
what is cut off put onto its ends, the quantized one has not; each level's mass is spread over those of its bins that
hold something. There the range is symmetric; here each end is searched for itself where the grid has an offset. Bins
belong to the levels of the very grid that a range gives. Exact zeros lie on a level whatever the range: they are equal
in both distributions and count only in their sums, so a sparse tensor's zeros say nothing about its bin next to 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.calibration.ranges.parameters import check_one_of, read_parameters
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.types import ClipRange
from amct_lite.uniform.grid import grid_from_range

__all__ = ["EntropyParameters", "divergences", "entropy"]

# Shares of the extremes that are tried, narrow to wide: TensorRT's search starts at 128 of 2048 bins too.
SHARES = np.linspace(1.0 / 16.0, 1.0, 121)


@dataclass(frozen=True)
class EntropyParameters:
    """The parameter of entropy.

    Attributes:
        num_of_bins: At most this many bins over the range: 1024, 2048, 4096 or 8192. With fewer, single counts make
            less noise; with more, fewer bins share a level.
    """

    num_of_bins: int = 2048

    def __post_init__(self) -> None:
        check_one_of("entropy", "num_of_bins", self.num_of_bins, (1024, 2048, 4096, 8192))


def entropy(
    snapshot: HistogramSnapshot,
    *,
    num_bits: int = 8,
    with_offset: bool = True,
    params: Mapping[str, Any] | None = None,
) -> ClipRange:
    """Searches the range with the least divergence.

    Args:
        snapshot: What calibration saw.
        num_bits: Width of a level.
        with_offset: Whether the grid may have an offset.
        params: Any of the fields of EntropyParameters.

    Returns:
        The range; the widest of the best. All of what was seen where there are as many levels as bins: quantization
        then loses nothing that the histogram could show.

    Raises:
        ParameterError: A parameter is unknown or out of its range.

    Example:
        >>> from amct_lite.calibration.histogram import Histogram
        >>> histogram = Histogram()
        >>> histogram.update(np.append(np.random.default_rng(0).normal(size=100_000), 60.0))
        >>> entropy(histogram.snapshot()).high < 30.0
        True
    """
    settings = read_parameters(EntropyParameters, "entropy", params)
    seen = snapshot.coarsened(settings.num_of_bins)
    clip = ClipRange(min(seen.minimum, 0.0), max(seen.maximum, 0.0))
    if 2**num_bits >= settings.num_of_bins or not seen.counts.size:
        return clip

    def least(candidates: Sequence[ClipRange]) -> ClipRange:
        found = divergences(seen, candidates, num_bits=num_bits, with_offset=with_offset)
        # From the end, because shares ascend.
        return candidates[len(candidates) - 1 - int(np.argmin(found[::-1]))]

    whole = clip
    if not with_offset:
        bound = max(-whole.low, whole.high)
        return least(
            [ClipRange(max(whole.low, -share * bound), min(whole.high, share * bound)) for share in SHARES.tolist()]
        )
    # One end at a time, the upper one again once the lower one is known.
    for end in ("high", "low", "high") if whole.low < 0.0 < whole.high else (("high" if whole.high else "low"),):
        shares = SHARES.tolist()
        if end == "high":
            clip = least([ClipRange(clip.low, share * whole.high) for share in shares])
        else:
            clip = least([ClipRange(share * whole.low, clip.high) for share in shares])
    return clip


def divergences(
    snapshot: HistogramSnapshot, ranges: Sequence[ClipRange], *, num_bits: int, with_offset: bool
) -> npt.NDArray[np.float64]:
    """Divergence of the observed distribution from the quantized one, in nats.

    Args:
        snapshot: What was seen, with at least one value other than 0.
        ranges: The ranges to measure.
        num_bits: Width of a level.
        with_offset: Whether grids may have an offset.

    Returns:
        float64 array, shape (ranges,); inf where a range holds no value but zeros.
    """
    counts = snapshot.counts.astype(np.float64)
    sums = _prefix_sums(counts)
    bounds = _cell_bounds(snapshot, ranges, num_bits=num_bits, with_offset=with_offset)
    mass, occupied, logs = (np.diff(column[bounds], axis=1) for column in sums)
    # What a level's bins hold once its mass is spread evenly over them.
    spread = np.log(np.divide(mass, occupied, out=np.ones_like(mass), where=occupied > 0.0))
    total = float(counts.sum()) + snapshot.zeros
    found = logs.sum(axis=1) - (mass * spread).sum(axis=1)
    cut_off = np.zeros(len(ranges))
    for beyond, end in ((sums[0][bounds[:, 0]], "first"), (sums[0][-1] - sums[0][bounds[:, -1]], "last")):
        cut_off += beyond
        found += _put_on_end(snapshot, bounds, spread, occupied, beyond, last=end == "last")
    kept = total - cut_off
    with np.errstate(divide="ignore"):
        found = found / total + np.log(kept / total)
    return np.where(occupied.sum(axis=1) > 0.0, np.maximum(found, 0.0), np.inf)


def _prefix_sums(counts: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Sums up to each bin of the counts c, of the bins that hold something, and of c * log(c)."""
    logs = counts * np.log(np.maximum(counts, 1.0))
    return [np.concatenate([[0.0], np.cumsum(column)]) for column in (counts, counts > 0.0, logs)]


def _cell_bounds(
    snapshot: HistogramSnapshot, ranges: Sequence[ClipRange], *, num_bits: int, with_offset: bool
) -> npt.NDArray[np.intp]:
    """For each range the first bin of every level, and behind the last one's; shape (ranges, levels + 1).

    A bin belongs to the level nearest to its middle; bins beyond the range belong to none.
    """
    grids = [grid_from_range(clip, num_bits=num_bits, with_offset=with_offset) for clip in ranges]
    scales = np.array([grid.scale for grid in grids])[:, None]
    first = np.array([grid.q_min - grid.offset for grid in grids])[:, None]
    points = (first - 0.5 + np.arange(2**num_bits + 1)) * scales
    bins = np.ceil(points / snapshot.width - 0.5) - snapshot.first_bin
    return np.asarray(np.clip(bins, 0, snapshot.counts.size), np.intp)


def _put_on_end(
    snapshot: HistogramSnapshot,
    bounds: npt.NDArray[np.intp],
    spread: npt.NDArray[np.float64],
    occupied: npt.NDArray[np.float64],
    beyond: npt.NDArray[np.float64],
    *,
    last: bool,
) -> npt.NDArray[np.float64]:
    """What is cut off at one end goes onto the outermost bin of the range that holds something."""
    counts = snapshot.counts
    filled = np.flatnonzero(counts)
    if last:
        at = filled[np.maximum(np.searchsorted(filled, bounds[:, -1]) - 1, 0)]
        level = occupied.shape[1] - 1 - np.argmax(occupied[:, ::-1] > 0.0, axis=1)
    else:
        at = filled[np.minimum(np.searchsorted(filled, bounds[:, 0]), filled.size - 1)]
        level = np.argmax(occupied > 0.0, axis=1)
    own = counts[at].astype(np.float64)
    with_it = own + beyond
    added = with_it * np.log(with_it) - own * np.log(own) - beyond * spread[np.arange(len(bounds)), level]
    return np.where(beyond > 0.0, added, 0.0)
