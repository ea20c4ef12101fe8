"""Mixed bits: how many each layer gets, so that a number of bytes does the least harm at the network's output.

Every layer and width has a predicted cost: the layer's own output error (delta' H delta, normalised, after the same
codebook and error feedback that will be used) times the root of how far the network's output moves for such an error in
that layer, measured once a layer; the root, because the closed loop makes up for a part of it later. Costs of layers
add (Dong et al. 2020, "HAWQ-V2", arXiv 1911.03852, section 3, from the Hessian's trace; here from the data). No
evaluator is needed.
"""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.cluster_rows import cluster_rows
from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.held_out import held_out_form
from amct_lite.codebook.least_squares import output_error, output_power
from amct_lite.codebook.second_moments import LEAST_DAMPING, SecondMoments, damped, mean_of
from amct_lite.codebook.specification import MAX_CODE_BITS, VECTOR_SIZES, CodebookSpec, CodeForm, Refine
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.weight_rows import from_rows, to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.moments import fold_moments
from amct_lite.refine.output_change import OutputChange
from amct_lite.refine.samples import Feed
from amct_lite.refine.stream import Stream
from amct_lite.types import Layer

__all__ = ["BitOption", "SpecOf", "allocate_bits", "bit_options"]

Progress = Callable[[int, int], None]
Float64Array = npt.NDArray[np.float64]
SpecOf = Callable[[Layer, CodeForm], CodebookSpec]

# How much wider than the narrowest codes those are that are tried, in bits a weight.
WIDER = 3

# Tables of vectors with more levels than that take more bytes than they save.
LEAST_CODES_PER_LEVEL = 16


@dataclass(frozen=True)
class BitOption:
    """One way to store one weight.

    Attributes:
        form: Bits of a code, and how many weights it stands for.
        size_bytes: Codes, tables and scales.
        cost: Predicted squared change of the network's output, relative to its size.
    """

    form: CodeForm
    size_bytes: int
    cost: float


def bit_options(
    model: Model,
    plans: Sequence[LayerPlan],
    feeds: Sequence[Feed],
    least_bits: int,
    spec_of: SpecOf,
    *,
    progress: Progress | None = None,
    sess_options: Any = None,
) -> dict[str, list[BitOption]]:
    """Predict what each width costs each weight.

    Args:
        model: The float model.
        plans: Plans whose codebooks are to get their widths.
        feeds: Calibration samples.
        least_bits: The narrowest width, at which the output's change is measured. Predictions are too rough to
            take bits from one layer for another: what the average leaves above this width is what is spent.
        spec_of: The codebook that a layer would have with such codes.
        progress: Called after each weight with (weights done, weights in all).
        sess_options: The user's onnxruntime.SessionOptions.

    Returns:
        Name of the weight -> its options, from narrow to wide.
    """
    change = OutputChange(model, feeds, sess_options=sess_options)
    by_weight: dict[str, list[LayerPlan]] = {}
    for plan in plans:
        if plan.codebook is not None and plan.layer.weight is not None:
            by_weight.setdefault(plan.layer.weight, []).append(plan)
    stream = Stream(model.ir, change.feeds, sess_options=sess_options)
    found = {}
    for number, (name, group) in enumerate(by_weight.items()):
        layer = group[0].layer
        stream.advance(layer.name)
        folds = _folds(model, layer, stream)
        # Errors are measured with all correlations: without those not believed, layers of few samples look alike.
        fitted, measured = held_out_form(folds), damped(mean_of(folds).quadratic, LEAST_DAMPING)
        candidates = [
            (form, *_candidate(model, layer, spec_of(layer, form), fitted, measured))
            for form in _forms(least_bits, layer.num_weights)
        ]
        _, narrow, narrow_error = candidates[0]
        moved = change.of_weight(name, np.ascontiguousarray(from_rows(narrow.decode(), layer)))
        factor = math.sqrt(moved / narrow_error) if narrow_error > 0.0 else 0.0
        options = [BitOption(form, codebook.stored_bytes, factor * error) for form, codebook, error in candidates]
        found[name] = sorted(options, key=lambda option: (option.size_bytes, option.cost))
        if progress is not None:
            progress(number + 1, len(by_weight))
    return found


def allocate_bits(options: Mapping[str, Sequence[BitOption]], max_bytes: int) -> dict[str, CodeForm]:
    """Choose a width for each weight: the least sum of costs within the bytes.

    Widths are raised one weight at a time by the largest fall of cost per byte, along the lower convex hull of each
    weight's options; then what still fits is added. Optimal up to the last step (Dyer 1984, "An O(n) algorithm for
    the multiple-choice knapsack linear program", Mathematical Programming 29).

    Args:
        options: From `bit_options`.
        max_bytes: How many bytes all weights may take; each takes its narrowest width at least.

    Returns:
        Name of the weight -> its codes.

    Example:
        >>> options = {
        ...     "a": [BitOption(CodeForm(2), 100, 9.0), BitOption(CodeForm(3), 150, 1.0)],
        ...     "b": [BitOption(CodeForm(2), 100, 2.0), BitOption(CodeForm(3), 150, 1.0)],
        ... }
        >>> {name: form.code_bits for name, form in allocate_bits(options, 250).items()}
        {'a': 3, 'b': 2}
    """
    chosen = dict.fromkeys(options, 0)
    left = max_bytes - sum(ways[0].size_bytes for ways in options.values())
    steps: list[tuple[float, str, int]] = []
    for name in options:
        _push_best_step(steps, options[name], name, 0)
    while steps and left > 0:
        _, name, index = heapq.heappop(steps)
        ways, here = options[name], options[name][chosen[name]]
        whole = ways[index].size_bytes - here.size_bytes <= left
        if not whole:
            # A shorter step may still fit; where none lowers the cost the weight stays as it is.
            fitting = (i for i in range(chosen[name], index) if ways[i].size_bytes - here.size_bytes <= left)
            index = min(fitting, key=lambda i: (ways[i].cost, i))
        left -= ways[index].size_bytes - here.size_bytes
        chosen[name] = index
        if whole:
            _push_best_step(steps, ways, name, index)
    return {name: options[name][index].form for name, index in chosen.items()}


def _push_best_step(steps: list[tuple[float, str, int]], ways: Sequence[BitOption], name: str, index: int) -> None:
    """The wider option that lowers the cost most per byte."""
    here = ways[index]
    gains = [
        ((way.cost - here.cost) / (way.size_bytes - here.size_bytes), name, number)
        for number, way in enumerate(ways[index + 1 :], index + 1)
        if way.cost < here.cost and way.size_bytes > here.size_bytes
    ]
    if gains:
        heapq.heappush(steps, min(gains))


def _forms(least_bits: int, num_weights: int) -> list[CodeForm]:
    """Codes to try, single ones first, the narrowest of them at the head; tables of vectors must not be most of it."""
    widest = min(MAX_CODE_BITS, least_bits + WIDER)
    forms = [CodeForm(bits) for bits in range(least_bits, widest + 1)]
    for size in VECTOR_SIZES[1:]:
        wide_enough = range(least_bits * size, min(widest * size, MAX_CODE_BITS) + 1)
        forms += [CodeForm(bits, size) for bits in wide_enough if size * 2**bits * LEAST_CODES_PER_LEVEL <= num_weights]
    return forms


def _candidate(
    model: Model, layer: Layer, spec: CodebookSpec, fitted: Float64Array, measured: Float64Array
) -> tuple[Codebook, float]:
    """A codebook of one width, made with one form of the inputs, and its relative output error by another."""
    assert layer.weight is not None
    rows = to_rows(model.weight(layer.weight), layer)
    used = replace(spec, refine=Refine.GPTQ if spec.refine is not Refine.NONE else Refine.NONE)
    codebook = cluster_rows(rows, used, quadratic=fitted)
    weight = rows.astype(np.float64).reshape(len(measured), -1, rows.shape[1])
    decoded = codebook.decode().astype(np.float64).reshape(weight.shape)
    signal = output_power(weight, measured)
    return codebook, output_error(weight, measured, decoded) / signal if signal > 0.0 else 0.0


def _folds(model: Model, layer: Layer, stream: Stream) -> list[SecondMoments]:
    node = next(node for node in model.ir.graph if node.name == layer.name)
    pairs = ((values, values) for values in stream.tensor(layer.activation))
    folds = fold_moments(LayerInputs.of_node(layer, node), pairs, seed=0)
    return [fold.centred() for fold in folds] if layer.op_type != "MatMul" else list(folds)
