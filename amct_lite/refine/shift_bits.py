"""Shifts for devices with an int16 stage, found on the quantized network's own accumulators.

The fake-quant form gives the numbers that integers give, so its outputs over deq_scale are the accumulators. Errors are
sums over the batches: memory holds one batch's outputs, whatever the number of samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.refine.samples import Feed
from amct_lite.types import LayerKind
from amct_lite.uniform.shift_bit import choose_shifts, shift_errors

__all__ = ["with_shift_bits"]


def with_shift_bits(
    model: Model, records: Mapping[str, LayerRecord], feeds: Sequence[Feed], *, sess_options: Any = None
) -> dict[str, LayerRecord]:
    """Add shift_bit to the records of all layers whose accumulator is shifted.

    These are the layers with int8 weights whose whole sum is in the accumulator: not pooling, and not a layer whose
    bias is added in float.

    Args:
        model: The float model.
        records: Layer name -> factors.
        feeds: Samples.
        sess_options: The user's onnxruntime.SessionOptions.
    """
    plain = {name: replace(record, shift_bit=()) for name, record in records.items()}
    layers = quantized_layers(model, plain)
    shifted = [layer for layer in layers if _is_shifted(model, layer)]
    if not shifted:
        return plain
    outputs = list(dict.fromkeys(layer.layer.output for layer in shifted))
    session = create_session(fake_quant_model(model, layers), extra_outputs=outputs, sess_options=sess_options)
    errors: dict[str, npt.NDArray[np.float64]] = {}
    is_global: dict[str, bool] = {}
    for feed in feeds:
        values = dict(zip(outputs, session.run(outputs, feed), strict=True))
        for layer in shifted:
            name, output = layer.layer.name, values[layer.layer.output]
            found = shift_errors(_by_scale(output, layer))
            errors[name] = errors[name] + found if name in errors else found
            spatial = output.shape[2:] if layer.layer.kind is not LayerKind.INNER_PRODUCT else ()
            is_global[name] = bool(spatial) and set(spatial) == {1}
    for layer in shifted:
        name = layer.layer.name
        shifts = choose_shifts(errors[name], layer.bias_scale(), is_global=is_global[name])
        plain[name] = replace(plain[name], shift_bit=shifts)
    return plain


def _is_shifted(model: Model, layer: QuantizedLayer) -> bool:
    if layer.weight is None or layer.grid is None:
        return False
    node = next(node for node in model.ir.graph if node.name == layer.layer.node_name)
    return layer.bias is not None or len(node.inputs) < 3 or node.inputs[2] is None


def _by_scale(output: npt.NDArray[np.float32], layer: QuantizedLayer) -> npt.NDArray[np.float64]:
    """Outputs over deq_scale, array of shape (number of scales, values)."""
    scale = layer.bias_scale().astype(np.float64)
    if scale.size == 1:
        return output.reshape(1, -1) / scale[:, None]
    axis = 1
    if layer.layer.kind is LayerKind.INNER_PRODUCT:
        axis = -1 if layer.layer.weight_index == 1 else -2
    by_channel: npt.NDArray[np.float64] = np.moveaxis(output, axis, 0).reshape(scale.size, -1) / scale[:, None]
    return by_channel
