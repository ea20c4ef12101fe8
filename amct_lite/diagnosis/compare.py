"""Run a float network and its quantized twin over batches and say what each layer loses."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import onnx_ir as ir

from amct_lite.calibration.feeds import input_specs, to_feed
from amct_lite.diagnosis.advice import Treatment, advise, treatment_of
from amct_lite.diagnosis.layer_table import LayerLoss, LayerTable
from amct_lite.diagnosis.moments import ErrorMoments, InputMoments
from amct_lite.diagnosis.twin_graph import Probe, twin_graph
from amct_lite.errors import ParameterError
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.layer_plan import LayerPlan

__all__ = ["compare_layers"]


class _Watched:
    """One layer's sums."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.errors = {kind: ErrorMoments() for kind in probe.outputs}
        self.input = InputMoments()

    def update(self, tensors: dict[str, Any]) -> None:
        reference = tensors[self.probe.reference]
        for kind, name in self.probe.outputs.items():
            self.errors[kind].update(reference, tensors[name])
        self.input.update(tensors[self.probe.layer.activation])

    def sqnr(self, kind: str) -> float | None:
        return self.errors[kind].sqnr_db if kind in self.errors else None

    @property
    def weight_share(self) -> float | None:
        if "own" not in self.errors:
            return None
        by_weight, by_input = self.errors["by_weight"].noise, self.errors["by_input"].noise
        return by_weight / (by_weight + by_input) if by_weight + by_input > 0 else None


def compare_layers(
    model: Model,
    quantized: ir.Model,
    batches: Iterable[Any],
    plans: Sequence[LayerPlan] = (),
    *,
    progress: Callable[[int], None] | None = None,
    sess_options: Any = None,
) -> LayerTable:
    """Compare the layers of two networks, in one pass and in memory that does not grow with the batches.

    Args:
        model: The float network.
        quantized: What was made of it, in operators that onnxruntime has.
        batches: Arrays, or dicts from input name to array; all are read.
        plans: How its layers are quantized, for the advice; empty where that is not known.
        progress: Called with the number of batches done.
        sess_options: onnxruntime.SessionOptions of the user's, for example with a custom-operator library.

    Returns:
        A row for each layer that both networks have, the one that loses most by itself first.

    Raises:
        AmctError: The networks do not belong together, a batch does not fit, or there is none.
    """
    twin, probes = twin_graph(model, quantized)
    watched = [_Watched(probe) for probe in probes]
    inputs = {value.name for value in twin.graph.inputs}
    names = dict.fromkeys(name for p in probes for name in (p.layer.activation, p.reference, *p.outputs.values()))
    computed = [name for name in names if name not in inputs]
    # As the graph says it: onnxruntime's optimizations would merge layers, and quantize float ones again.
    session = create_session(twin, extra_outputs=computed, sess_options=sess_options, optimize=False)
    specs = input_specs(session)
    count = 0
    for count, batch in enumerate(batches, 1):
        feed = to_feed(batch, specs, count)
        tensors = {**feed, **dict(zip(computed, session.run(computed, feed), strict=True))}
        for layer in watched:
            layer.update(tensors)
        if progress is not None:
            progress(count)
    if count == 0:
        raise ParameterError("There are no batches to compare on.", remedy="Give at least one.")
    return LayerTable(_rows(watched, {plan.layer.name: treatment_of(plan) for plan in plans}))


def _rows(watched: Sequence[_Watched], treatments: dict[str, Treatment | None]) -> list[LayerLoss]:
    rows = []
    culprit: tuple[float, str] | None = None
    for layer in watched:
        name, own, whole = layer.probe.layer.name, layer.sqnr("own"), layer.errors["whole"]
        advice = advise(
            own_db=own,
            whole_db=whole.sqnr_db,
            weight_share=layer.weight_share,
            crest=layer.input.crest,
            lowest_input=layer.input.low,
            treatment=treatments.get(name),
            culprit=None if culprit is None else repr(culprit[1]),
        )
        rows.append(
            LayerLoss(
                layer=name,
                type=layer.probe.layer.op_type,
                sqnr_db=whole.sqnr_db,
                cosine=whole.cosine,
                own_sqnr_db=own,
                own_cosine=layer.errors["own"].cosine if own is not None else None,
                weight_sqnr_db=layer.sqnr("by_weight"),
                input_sqnr_db=layer.sqnr("by_input"),
                weight_share=layer.weight_share,
                advice=advice,
            )
        )
        if own is not None and math.isfinite(own) and (culprit is None or own < culprit[0]):
            culprit = own, name
    return sorted(rows, key=lambda row: (_or_infinite(row.own_sqnr_db), row.sqnr_db))


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
