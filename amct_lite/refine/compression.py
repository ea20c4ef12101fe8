"""From a float model to codebooks in one step: config, widths, calibration."""

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_lite.codebook.specification import MAX_CODE_BITS, CodebookSpec, CodeForm, Refine
from amct_lite.errors import ConfigError, ParameterError
from amct_lite.export.save import Saved, save_quantized
from amct_lite.files.config import CodebookParams, FloatActivationParams, IfmrParams, LayerConfig, QuantConfig
from amct_lite.files.config_file import write_config
from amct_lite.files.record import LayerRecord, write_record
from amct_lite.files.target import load_target
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import codebook_spec, make_plan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.weight_rows import weight_layout
from amct_lite.refine.allocation import SpecOf, allocate_bits, bit_options
from amct_lite.refine.calibration import find_records
from amct_lite.refine.samples import MAX_SAMPLES, SampleKeeper
from amct_lite.types import Layer, Technique

__all__ = ["Compressed", "compress_model"]

Progress = Callable[[str, int, int], None]

MIN_BITS, MAX_BITS = 1, MAX_CODE_BITS


@dataclass(frozen=True)
class Compressed:
    """A compressed network, not yet on disk.

    Attributes:
        graph: The float model with the config and plan that were used.
        records: The factors and codebooks of every compressed layer.
    """

    graph: PlannedGraph
    records: dict[str, LayerRecord]

    def save(
        self, out_dir: str | Path, prefix: str | None = None, *, save_type: str = "Deploy", storage: str | None = None
    ) -> Saved:
        """Write the small model, the config, the record with the codebooks, and the summary.

        Args:
            out_dir: The folder; made if missing.
            prefix: What the files' names start with; the model's name by default.
            save_type: "Deploy" (the small model), "Fakequant" (dense, for comparison) or "Both".
            storage: As for `amct_lite.save_model`.

        Returns:
            The files written, and the summary.

        Raises:
            FileError: A file cannot be written.
        """
        folder = Path(out_dir)
        start = self.graph.model.path.stem if prefix is None else prefix
        saved = save_quantized(self.graph, self.records, save_type, folder, start, storage=storage)
        config_file, record_file = folder / f"{start}_config.json", folder / f"{start}_record.txt"
        write_config(self.graph.config, config_file)
        write_record(self.records, record_file)
        return Saved({**saved.files, "config": config_file, "record": record_file}, saved.summary)


def compress_model(
    model: Model,
    bits: float,
    batches: Iterable[Any] | None,
    *,
    refine: str | None = None,
    activation_bits: int | None = None,
    skip_layers: Sequence[str] = (),
    progress: Progress | None = None,
    sess_options: Any = None,
) -> Compressed:
    """Compress a loaded model; see `amct_lite.compress`."""
    _check(bits, refine, activation_bits, batches)
    target = load_target("onnxruntime")
    held = None if batches is None else _held(batches, whole=activation_bits is not None)
    chosen = Refine.NONE if held is None else Refine(refine) if refine is not None else Refine.LNQ
    whole_bits = int(bits) if float(bits).is_integer() else None
    names = [layer.name for layer in model.layers if target.refusal(layer, Technique.CODEBOOK) is None and layer.weight]
    _check_names(skip_layers, model)
    start = {
        name: CodeForm.to_refine(whole_bits or MAX_BITS, model.layer(name).num_weights, chosen)
        for name in names
        if name not in skip_layers
    }
    if not start:
        raise ConfigError("No layer of the model can become a codebook.", remedy="`amct-lite inspect` shows why.")
    config = _config(start, chosen, activation_bits, len(held or ()) or 1)
    plans = make_plan(model.layers, config, target)
    if whole_bits is None:

        def spec_of(layer: Layer, form: CodeForm) -> CodebookSpec:
            return codebook_spec(layer, _params(form, chosen), target, quantized_input=activation_bits is not None)

        forms = _forms(model, plans, bits, held, spec_of, progress, sess_options)
        config = _config({**start, **forms}, chosen, activation_bits, len(held or ()) or 1)
        plans = make_plan(model.layers, config, target)
    graph = PlannedGraph(model, config, target, plans, config_file=None)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("compressing", done, total)

    return Compressed(graph, find_records(graph, held, progress=report, sess_options=sess_options))


def _check(bits: float, refine: str | None, activation_bits: int | None, batches: Iterable[Any] | None) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int | float) or not MIN_BITS <= bits <= MAX_BITS:
        raise ParameterError(
            f"The 'bits' parameter of compress must be a number in the range [{MIN_BITS}, {MAX_BITS}]."
            f" Got {bits!r} instead."
        )
    if refine is not None and refine not in list(Refine):
        raise ParameterError(
            f"The 'refine' parameter of compress must be one of {tuple(map(str, Refine))}. Got {refine!r} instead."
        )
    if activation_bits not in (None, 8):
        raise ParameterError(
            f"The 'activation_bits' parameter of compress must be None or 8. Got {activation_bits!r} instead."
        )
    if batches is not None:
        return
    for what, wanted in (
        ("activation_bits=8", activation_bits is not None),
        (f"refine={refine!r}", refine not in (None, "none")),
        (f"bits={bits!r}", not float(bits).is_integer()),
    ):
        if wanted:
            raise ParameterError(
                f"compress needs calibration data for {what}.", remedy="Give batches, or leave it out."
            )


def _check_names(skip_layers: Sequence[str], model: Model) -> None:
    for name in skip_layers:
        model.layer(name)


def _held(batches: Iterable[Any], *, whole: bool) -> list[Any]:
    """Batches in memory: all where ranges are calibrated on them and their number is known, else enough to refine."""
    held, samples = [], 0
    known = isinstance(batches, Sized)
    for batch in batches:
        held.append(batch)
        first = next(iter(batch.values())) if isinstance(batch, dict) else batch
        shape = getattr(first, "shape", ())
        samples += shape[0] if shape else 1
        if samples >= MAX_SAMPLES and not (whole and known):
            break
    if not held:
        raise ParameterError("The 'batches' parameter of compress is empty.", remedy="Give calibration data, or None.")
    return held


def _params(form: CodeForm, refine: Refine) -> CodebookParams:
    return CodebookParams(
        wts_algo="codebook_quantize", num_bits=form.code_bits, vector_size=form.vector_size, refine=refine
    )


def _config(forms: dict[str, CodeForm], refine: Refine, activation_bits: int | None, batch_num: int) -> QuantConfig:
    activation = IfmrParams() if activation_bits == 8 else FloatActivationParams(act_algo="none")
    layers = {
        name: LayerConfig(
            activation_quant_params=activation,
            weight_quant_params=_params(form, refine),
        )
        for name, form in forms.items()
    }
    return QuantConfig.model_validate({"target": "onnxruntime", "batch_num": batch_num, **layers})


def _forms(
    model: Model,
    plans: Sequence[LayerPlan],
    bits: float,
    held: list[Any] | None,
    spec_of: SpecOf,
    progress: Progress | None,
    sess_options: Any,
) -> dict[str, CodeForm]:
    """Layer name -> its codes, so that all codes, tables and scales take `bits` a weight on average."""
    assert held is not None
    keeper = SampleKeeper.of_model(model.ir, sess_options=sess_options)
    for _ in keeper.watch(held, len(held)):
        pass

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("weighing layers", done, total)

    weights = {plan.layer.weight: plan.layer.num_weights for plan in plans if plan.codebook is not None}
    max_bytes = int(bits * sum(weights.values()) / 8)
    least_bits = _widest_even_bits(plans, max_bytes, spec_of)
    options = bit_options(model, plans, keeper.feeds, least_bits, spec_of, progress=report, sess_options=sess_options)
    chosen = allocate_bits(options, max_bytes)
    return {plan.layer.name: chosen[plan.layer.weight] for plan in plans if plan.layer.weight in chosen}


def _widest_even_bits(plans: Sequence[LayerPlan], max_bytes: int, spec_of: SpecOf) -> int:
    """The widest width that all weights can have at once, tables and scales included; 1 where none fits."""
    by_weight = {plan.layer.weight: plan for plan in plans}

    def size_bytes(width: int) -> int:
        total = 0
        for plan in by_weight.values():
            if plan.codebook is not None:
                layout = weight_layout(plan.layer)
                total += spec_of(plan.layer, CodeForm(width)).stored_bytes(layout.rows, layout.columns)
        return total

    fitting = [width for width in range(MIN_BITS, MAX_BITS + 1) if size_bytes(width) <= max_bytes]
    return max(fitting, default=MIN_BITS)
