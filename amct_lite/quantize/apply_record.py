"""Apply a record to a model's layers: factors and float weights become integers, codes and levels."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.assignment import quantize_to_levels
from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.errors import ParameterError, RecordError
from amct_lite.files.config import FORCE_FP16_QUANT
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.graph.operator_inputs import find_operator_input
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.quantize.weight_rows import weight_layout
from amct_lite.types import Grid, Layer, LayerKind
from amct_lite.uniform.arq import quantize_weight
from amct_lite.uniform.bias import quantize_bias

__all__ = ["Quantize", "quantize_input", "quantize_layer", "quantized_layers"]

Quantize = Callable[[Layer, LayerRecord], QuantizedLayer]
"""Applies a record to one layer."""


def quantized_layers(
    model: Model, records: Mapping[str, LayerRecord], quantize: Quantize | None = None
) -> tuple[QuantizedLayer, ...]:
    """Apply a record to a model's layers.

    Args:
        model: The float model.
        records: Layer name -> factors.
        quantize: Makes one layer, or finds it where it was made before; None for `quantize_layer`.

    Returns:
        The layers that the record names, and the inputs of other operators that it names, in graph order.

    Raises:
        RecordError: A record does not fit its layer, or names a layer that the model does not have.
    """
    layers = [layer for layer in model.layers if layer.name in records]
    known = {layer.name for layer in layers}
    for name in records:
        if name in known:
            continue
        between = find_operator_input(model.ir.graph, name)
        if between is None:
            raise RecordError(
                f"find {name} failure in model {model.path}: {_what_is_there(model, name)}.",
                remedy="Use the model that the record was made for, or delete the entry.",
            )
        layers.append(between)
    for layer in layers:
        _check_tied(layer, records)
    if len(layers) > len(known):
        places = {node.name: place for place, node in enumerate(model.ir.graph)}
        layers.sort(key=lambda layer: places[layer.node_name])
    make = partial(quantize_layer, model) if quantize is None else quantize
    return tuple(make(layer, records[layer.name]) for layer in layers)


def _what_is_there(model: Model, name: str) -> str:
    node = next((node for node in model.ir.graph if node.name == name), None)
    if node is None:
        return "there is no such layer"
    return f"it is an operator of type {node.op_type}, which amct_lite does not quantize"


def quantize_layer(model: Model, layer: Layer, record: LayerRecord) -> QuantizedLayer:
    """Apply a record to one layer.

    Raises:
        RecordError: It does not fit the layer.
    """
    _check_scaled_alike(model, layer, record)
    if record.scale_d is None and not record.scale_w and record.codebook is None:
        raise RecordError(
            f"cannot find scale_d of layer {layer.name} in the record.",
            layer=layer.name,
            remedy="Calibrate again.",
        )
    quantized = quantize_input(layer, record)
    if layer.weight is None or record.float_weights:
        _refuse_weight_factors(layer, record)
        return replace(quantized, float_weight=_fitted_weight(layer, record), float_bias=_fitted_bias(layer, record))
    if record.codebook is not None:
        return _with_codebook(model, quantized, record, record.codebook)
    return _with_integers(model, quantized, record)


def _refuse_weight_factors(layer: Layer, record: LayerRecord) -> None:
    """Refuse factors of weights where there are none to quantize: AMCT's average pooling takes none, and no shift."""
    of_inputs = ("tensor_balance_factor",) if layer.weight is None else ()
    for field in ("scale_w", "offset_w", "cluster", "codebook", *of_inputs):
        if getattr(record, field):
            raise RecordError(
                f"find undesirable {field} of layer {layer.name} in record_file: {layer.op_type} has no weights to"
                " quantize.",
                layer=layer.name,
                remedy=f"Delete its {field}, or calibrate again.",
            )
    if record.shift_bit:
        raise RecordError(
            f"shift_bit is not support, please delete shift_bit of layer {layer.name} in record_file: {layer.op_type}"
            " has no accumulator to shift.",
            layer=layer.name,
            remedy="Delete its shift_bit.",
        )


def _check_scaled_alike(model: Model, layer: Layer, record: LayerRecord) -> None:
    """Refuse factors that are for a weight scaled in another way than the model's."""
    if record.equalized != (layer.name in model.equalized_layers):
        raise RecordError(
            f"The record was made {'with' if record.equalized else 'without'} cross-layer equalization of this layer,"
            f" and the config now asks for {'none' if record.equalized else 'it'}.",
            layer=layer.name,
            remedy=f'Set "cross_layer_equalization" to {str(record.equalized).lower()}, or calibrate again.',
        )
    if record.tensor_balance_factor != model.balance_factors.get(layer.name, ()):
        raise RecordError(
            "The record's tensor_balance_factor is not what the model's input and weight are balanced with.",
            layer=layer.name,
            remedy="Calibrate again.",
        )


def quantize_input(layer: Layer, record: LayerRecord) -> QuantizedLayer:
    """Apply a record to the input of a layer alone; its weight and bias stay float."""
    return QuantizedLayer(
        layer=layer,
        grid=None if record.scale_d is None else Grid(record.scale_d, record.offset_d, record.activation_bits),
        activation_levels=record.activation_cluster or None,
        activation_costs=record.activation_cluster_cost,
        weight=None,
        scale_w=np.empty(0, np.float32),
        weight_levels=None,
        bias=None,
        float16=record.fakequant_precision_mode == FORCE_FP16_QUANT,
    )


def _with_integers(model: Model, quantized: QuantizedLayer, record: LayerRecord) -> QuantizedLayer:
    layer, scale_w = quantized.layer, np.array(record.scale_w, np.float32)
    assert layer.weight is not None
    _check_scales(layer, scale_w)
    axis = layer.output_channel_axis if scale_w.size > 1 else None
    fitted = _fitted_weight(layer, record)
    values = model.weight(layer.weight) if fitted is None else fitted
    if record.cluster:
        weight = quantize_to_levels(values, scale_w, record.cluster, axis=axis, costs=record.cluster_cost)
    else:
        weight = quantize_weight(values, scale_w, axis=axis, num_bits=record.weight_bits)
    quantized = replace(
        quantized,
        weight=weight,
        scale_w=scale_w,
        weight_levels=record.cluster or None,
        weight_bits=record.weight_bits,
        shift_bit=record.shift_bit if any(record.shift_bit) else (),
    )
    if record.scale_d is None:
        return replace(quantized, float_bias=_fitted_bias(layer, record))
    own = _bias(model, layer, record)
    return quantized if own is None else replace(quantized, bias=_quantize_bias(layer, own, scale_w, record.scale_d))


def _with_codebook(model: Model, quantized: QuantizedLayer, record: LayerRecord, codebook: Codebook) -> QuantizedLayer:
    layer = quantized.layer
    layout = weight_layout(layer)
    if (codebook.num_rows, codebook.num_columns) != (layout.rows, layout.columns):
        raise _of_another_weight("codebook", layer)
    quantized = replace(quantized, codebook=codebook, float_bias=_fitted_bias(layer, record))
    if codebook.level_type is not LevelType.INT8:
        return quantized
    weight = np.ascontiguousarray(layout.from_rows(codebook.levels_of_weights().astype(np.int8)))
    quantized = replace(quantized, weight=weight, scale_w=codebook.scales)
    if record.scale_d is None:
        return quantized
    own = _bias(model, layer, record)
    if own is None:
        return quantized
    try:
        return replace(quantized, bias=quantize_bias(own, codebook.scales, record.scale_d), float_bias=None)
    except ParameterError:
        # Too large for int32 at these scales: it is added in float, as exact as before.
        return quantized


def _fitted_weight(layer: Layer, record: LayerRecord) -> npt.NDArray[np.float32] | None:
    if record.weight is not None and record.weight.shape != layer.weight_shape:
        raise _of_another_weight("weight", layer)
    return record.weight


def _fitted_bias(layer: Layer, record: LayerRecord) -> npt.NDArray[np.float32] | None:
    if record.bias is not None and (not layer.weight_shape or record.bias.shape != (weight_layout(layer).rows,)):
        raise _of_another_weight("bias", layer)
    return record.bias


def _bias(model: Model, layer: Layer, record: LayerRecord) -> npt.NDArray[np.float32] | None:
    """The float bias that the layer has: the fitted one, else its own."""
    fitted = _fitted_bias(layer, record)
    return model.weight(layer.bias).reshape(-1) if fitted is None and layer.bias is not None else fitted


def _of_another_weight(what: str, layer: Layer) -> RecordError:
    return RecordError(
        f"The {what} beside the record is for another weight than one of {layer.weight_shape}.",
        layer=layer.name,
        remedy="Use the model that the record was made for, or calibrate again.",
    )


def _quantize_bias(
    layer: Layer, bias: npt.NDArray[np.float32], scale_w: npt.NDArray[np.float32], scale_d: float
) -> npt.NDArray[np.int32]:
    try:
        return quantize_bias(bias, scale_w, scale_d)
    except ParameterError as error:
        # Calibration raises the scales for such a bias, so this record came from elsewhere.
        raise RecordError(
            f"The bias does not fit the record's scales: {error.cause}", layer=layer.name, remedy="Calibrate again."
        ) from error


def _check_tied(layer: Layer, records: Mapping[str, LayerRecord]) -> None:
    own = records[layer.name]
    for name in layer.tied_with:
        other = records.get(name)
        if other is None:
            continue
        same = _same_codebook(own.codebook, other.codebook) and _same_array(own.weight, other.weight)
        if not same or _weight_factors(own) != _weight_factors(other):
            raise RecordError(
                f"It shares its weight with layer {name!r}, but the record has other scale_w or cluster for that one.",
                layer=layer.name,
                remedy="Calibrate again.",
            )


def _same_codebook(first: Codebook | None, second: Codebook | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first.codes, second.codes) and np.array_equal(first.decode(), second.decode())


def _same_array(first: npt.NDArray[np.float32] | None, second: npt.NDArray[np.float32] | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def _weight_factors(record: LayerRecord) -> tuple[object, ...]:
    return record.scale_w, record.cluster, record.cluster_cost, record.float_weights, record.weight_bits


def _check_scales(layer: Layer, scale_w: npt.NDArray[np.float32]) -> None:
    channels = layer.weight_shape[layer.output_channel_axis]
    if scale_w.size == 0:
        raise RecordError(
            f"cannot find scale_w of layer {layer.name} in the record.",
            layer=layer.name,
            remedy="Calibrate again.",
        )
    if layer.kind is LayerKind.DECONVOLUTION and layer.group > 1 and scale_w.size > 1:
        raise RecordError(
            f"The record has {scale_w.size} scale_w; a grouped transposed convolution takes one.",
            layer=layer.name,
            remedy="Calibrate again.",
        )
    if scale_w.size not in (1, channels):
        raise RecordError(
            f"The record has {scale_w.size} scale_w; the weight has {channels} output channels.",
            layer=layer.name,
            remedy="Use the model that the record was made for, or calibrate again.",
        )
