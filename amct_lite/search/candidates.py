"""Candidates of a search as files: each layer is quantized once for each of its options, and only bytes are written.

A candidate is what the search is for: the deploy model itself for target `onnxruntime`, with weights stored so that it
loads fast; the fake-quant form, which runs everywhere, for other targets and for Caffe pairs.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import onnx_ir as ir

from amct_lite.caffe.model import CaffeModel
from amct_lite.errors import FileError
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.export.qdq import qdq_model
from amct_lite.export.save import ModelFiles, fake_quant_form
from amct_lite.files.record import LayerRecord
from amct_lite.graph.cloning import make_self_contained
from amct_lite.graph.saving import DEFAULT_EXTERNAL_THRESHOLD_BYTES, save_ir
from amct_lite.graph.segments import cut
from amct_lite.graph.serializing import message_parts, take_weights_out
from amct_lite.graph.tensor_digests import TensorDigests
from amct_lite.quantize.apply_record import quantize_layer, quantized_layers
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.reuse.bounded_cache import BoundedCache
from amct_lite.reuse.offers import SegmentOffers
from amct_lite.reuse.segment_runner import SegmentRunner
from amct_lite.types import Layer

__all__ = ["MAX_LAYER_BYTES", "CandidateWriter"]

MAX_LAYER_BYTES = 512 * 2**20


class CandidateWriter(AbstractContextManager["CandidateWriter"]):
    """Writes candidates of one network; while it is entered, sessions of them share what they have in common.

    Memory: MAX_LAYER_BYTES of quantized layers, and while it is entered MAX_SESSION_BYTES and MAX_OUTPUT_BYTES of
    `amct_lite.reuse`, 512 MiB each, beside the candidates that are just being evaluated.

    Example:
        >>> with CandidateWriter(planned) as writer:  # doctest: +SKIP
        ...     files = writer.write(writer.layers(records), folder)
        ...     accuracy = evaluate(amct_lite.InferenceSession(files.model))
    """

    def __init__(self, planned: PlannedGraph, *, reuse: bool = True, max_layer_bytes: int = MAX_LAYER_BYTES) -> None:
        """Prepare to write.

        Args:
            planned: The model and its target.
            reuse: Whether sessions share anything; for comparisons.
            max_layer_bytes: The most that quantized layers which are kept may take.
        """
        self._planned = planned
        self._deploys = planned.target.deploy_form == "qdq" and not isinstance(planned.model, CaffeModel)
        self._layers: BoundedCache[tuple[LayerRecord, QuantizedLayer]] = BoundedCache(max_layer_bytes)
        self._digests = TensorDigests()
        self._round = 0
        self._stack = ExitStack()
        self._reuse = reuse
        self._offers: SegmentOffers | None = None

    def __enter__(self) -> "CandidateWriter":
        if self._reuse and not isinstance(self._planned.model, CaffeModel):
            self._offers = self._stack.enter_context(SegmentOffers(SegmentRunner()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._offers = None
        self._stack.close()

    @property
    def form(self) -> str:
        """What candidates are: "deploy" or "fake_quant"."""
        return "deploy" if self._deploys else "fake_quant"

    @property
    def runner(self) -> SegmentRunner | None:
        """What runs candidates while this is entered; None where nothing is shared."""
        return None if self._offers is None else self._offers.runner

    def layers(self, records: Mapping[str, LayerRecord]) -> tuple[QuantizedLayer, ...]:
        """The quantized layers of some factors, ready for `write`.

        Args:
            records: Layer name -> factors. The same record object for the same option is what makes this fast.

        Raises:
            RecordError: A record does not fit its layer, or names a layer that the model does not have.
        """
        self._round += 1
        return quantized_layers(self._planned.model, records, self._layer)

    def write(self, layers: Sequence[QuantizedLayer], folder: Path) -> ModelFiles:
        """Write a candidate.

        Args:
            layers: From `layers`; or any quantized layers of the model, in graph order.
            folder: An empty folder.

        Raises:
            ExportError: The form cannot express a layer.
            FileError: A file cannot be written.
        """
        if isinstance(self._planned.model, CaffeModel):
            form = fake_quant_form(self._planned, layers, folder, "candidate_")
            form.write()
            return form.files
        path = folder / f"candidate_{self.form}_model.onnx"
        model = self._onnx_model(layers)
        make_self_contained(model)
        proto, weights = take_weights_out(model)
        if sum(int(tensor.nbytes) for tensor in weights.values()) > DEFAULT_EXTERNAL_THRESHOLD_BYTES:
            save_ir(self._onnx_model(layers), path)
            return ModelFiles(path, external=tuple(sorted(set(folder.iterdir()) - {path})))
        # Nobody looks for it before it is there, so it needs no other name until it is whole.
        try:
            with path.open("wb") as file:
                file.writelines(message_parts(proto, weights))
        except OSError as error:
            raise FileError(
                f"Cannot write the candidate {path}: {error}.", remedy="Check that the disk has room."
            ) from error
        if self._offers is not None:
            self._offers.offer(path, cut(proto, weights, self._digests))
        return ModelFiles(path)

    def _onnx_model(self, layers: Sequence[QuantizedLayer]) -> ir.Model:
        make = qdq_model if self._deploys else fake_quant_model
        return make(self._planned.model, layers)

    def _layer(self, layer: Layer, record: LayerRecord) -> QuantizedLayer:
        known = self._layers.get((layer.name, id(record)), self._round)
        if known is not None:
            return known[1]
        made = quantize_layer(self._planned.model, layer, record)
        ready = self._ready(made)
        # The record is kept with it: its number would be another one's otherwise.
        self._layers.put((layer.name, id(record)), (record, ready), _size_bytes(ready), self._round)
        return ready

    def _ready(self, layer: QuantizedLayer) -> QuantizedLayer:
        """The layer as the form takes it, with what all candidates would work out again done once."""
        if isinstance(self._planned.model, CaffeModel):
            return layer  # its pair is made of the integers
        return _fast_to_load(layer) if self._deploys else _in_float(layer)


def _fast_to_load(layer: QuantizedLayer) -> QuantizedLayer:
    """The same numbers without codes that ONNX Runtime would have to decode: int8 values, or else floats."""
    if layer.codebook is None:
        return layer
    dense = None if layer.weight is not None else layer.decode_weight()
    return replace(layer, codebook=None, float_weight=dense)


def _in_float(layer: QuantizedLayer) -> QuantizedLayer:
    """The same numbers with a weight in floats, as the fake-quant form has it."""
    if not layer.has_weight:
        return layer
    return replace(layer, codebook=None, weight=None, float_weight=layer.decode_weight())


def _size_bytes(layer: QuantizedLayer) -> int:
    arrays = (layer.weight, layer.float_weight, layer.bias, layer.float_bias, layer.scale_w)
    return sum(array.nbytes for array in arrays if array is not None)
