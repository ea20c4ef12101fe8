"""How layers respond to each level of their quantized input, from samples: what output-aware levels are chosen by."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.output_levels import OutputResponse
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.types import Grid
from amct_lite.uniform.grid import quantize

__all__ = ["layer_response", "sum_of"]

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Output positions of a sample that stand for all.
POSITIONS_PER_SAMPLE = 24

# Random mixtures of output channels that stand for all: E[(p'r)(p'r)'] = E[sum over channels of r r'] for random signs
# p, so a few give the same form with some noise.
NUM_PROBES = 16

# With groups a mixture speaks for its own channels only, and has few weights to add up: more of them, fewer positions.
NUM_GROUPED_PROBES = 128
POSITIONS_PER_GROUPED_SAMPLE = 6

# How much more a loss of gain counts than as much noise: the least squared error alone makes outputs small, layer
# after layer, since small levels carry less noise; a weight that is fitted later only has to give it back.
GAIN_WEIGHT = 3.0

# A layer whose output is weaker than this share of the strongest one is taken for silent.
LEAST_POWER = 1e-12


def layer_response(
    inputs: LayerInputs,
    rows: Float32Array,
    grid: Grid,
    activations: Iterable[tuple[Array, Array]],
    *,
    takes_bias: bool,
    seed: int,
) -> OutputResponse:
    """Measure one layer, relative to the power of its output in the float network.

    Args:
        inputs: The layer's geometry.
        rows: Its weight, shape (out_channels, K).
        grid: Of its input.
        activations: The input in the float network and in the quantized one, batch by batch.
        takes_bias: Whether a bias will make up for the mean error, so that only deviations from the means count.
        seed: For the choice of positions and mixtures.
    """
    random = np.random.default_rng(seed)
    groups, probes = _probes(rows, inputs.layer.group, random)
    per_sample = POSITIONS_PER_SAMPLE if inputs.layer.group == 1 else POSITIONS_PER_GROUPED_SAMPLE
    quadratic, linear, counts = np.zeros((256, 256)), np.zeros(256), np.zeros(256)
    response_sums, output_sums, power, count = np.zeros((len(probes), 256)), np.zeros(len(probes)), 0.0, 0
    for floats, values in activations:
        if not values.size:
            continue
        positions = inputs.positions(values.shape, per_sample, random)
        # Counted from the lowest level of the grid.
        levels = quantize(inputs.vectors(values, positions), grid).astype(np.intp) - grid.q_min
        outputs = np.einsum("pnk,pk->np", inputs.vectors(floats, positions)[groups], probes, dtype=np.float64)
        outputs /= grid.scale
        responses = _responses(levels, groups, probes)
        flat = responses.reshape(-1, 256)
        quadratic += flat.T @ flat
        linear += flat.T @ outputs.astype(np.float32).reshape(-1)
        response_sums += responses.sum(axis=0, dtype=np.float64)
        output_sums += outputs.sum(axis=0)
        power += float(np.square(outputs).sum())
        counts += np.bincount(levels.reshape(-1), minlength=256)
        count += len(responses)
    if takes_bias and count:
        quadratic -= response_sums.T @ response_sums / count
        linear -= response_sums.T @ output_sums / count
        power -= float(np.square(output_sums).sum()) / count
    share = 1.0 / power if power > LEAST_POWER * max(1.0, float(np.trace(quadratic))) else 0.0
    return OutputResponse(share * quadratic, share * linear, counts).with_gain_kept(GAIN_WEIGHT)


def sum_of(responses: Iterable[OutputResponse]) -> OutputResponse:
    """The response of all layers that read a tensor: each counts by its relative error."""
    first, *others = responses
    for other in others:
        first = OutputResponse(
            first.quadratic + other.quadratic, first.linear + other.linear, first.counts + other.counts
        )
    return first


def _probes(rows: Float32Array, group: int, random: np.random.Generator) -> tuple[npt.NDArray[np.intp], Float32Array]:
    """(group of each probe, its weight vector of shape (K,)): random signs over the output channels of a group."""
    weight = rows.reshape(group, -1, rows.shape[1])
    count = NUM_PROBES if group == 1 else min(NUM_GROUPED_PROBES, len(rows))
    groups = random.permutation(np.resize(np.arange(group), count) if group < count else group)
    groups = groups[:count].astype(np.intp)
    signs = random.choice(np.array([-1.0, 1.0], np.float32), (groups.size, weight.shape[1]))
    return groups, np.einsum("pr,prk->pk", signs, weight[groups])


def _responses(levels: npt.NDArray[np.intp], groups: npt.NDArray[np.intp], probes: Float32Array) -> Float32Array:
    """Shape (vectors, probes, 256): sum of a probe's weights over those inputs of a vector that are on a level."""
    count = levels.shape[1]
    found = np.empty((count, len(probes), 256), np.float32)
    places = levels + 256 * np.arange(count)[:, None]
    for probe, group in enumerate(groups):
        at = places[group].reshape(-1)
        weights = np.broadcast_to(probes[probe], (count, probes.shape[1])).reshape(-1)
        found[:, probe] = np.bincount(at, weights, minlength=256 * count).reshape(count, 256)
    return found
