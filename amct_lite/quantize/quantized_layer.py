"""A quantized layer: what a record and a float weight make together, the numbers that every form must give."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.assignment import quantize_to_levels
from amct_lite.codebook.lookup import nearest_level_table
from amct_lite.errors import ParameterError, RecordError
from amct_lite.files.record import LayerRecord
from amct_lite.graph.model import Model
from amct_lite.types import Grid, Layer, LayerKind
from amct_lite.uniform.arq import dequantize_weight, quantize_weight
from amct_lite.uniform.bias import quantize_bias

__all__ = ["QuantizedLayer", "quantize_layer", "quantized_layers"]


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer in integers.

    Attributes:
        layer: The layer.
        grid: Grid of its activation.
        activation_levels: The levels that activation NUQ keeps, ascending; None without it.
        weight: int8 array of the stored weight's shape; None for a layer without weights, or with float ones.
        scale_w: float32 array of shape (out_channels,) or (1,); empty where weight is None.
        weight_levels: The levels that weight NUQ keeps, ascending; None without it.
        bias: int32 array of shape (out_channels,) at scale_w * scale_d; None without a constant bias, or where weight
            is None.
    """

    layer: Layer
    grid: Grid
    activation_levels: tuple[int, ...] | None
    weight: npt.NDArray[np.int8] | None
    scale_w: npt.NDArray[np.float32]
    weight_levels: tuple[int, ...] | None
    bias: npt.NDArray[np.int32] | None

    @property
    def has_float_weights(self) -> bool:
        """Whether only the activation is quantized, though the layer has weights."""
        return self.weight is None and self.layer.weight is not None

    @property
    def scale_axis(self) -> int | None:
        """Axis of the weight along which scale_w runs; None for one scale."""
        return self.layer.output_channel_axis if self.scale_w.size > 1 else None

    def bias_scale(self) -> npt.NDArray[np.float32]:
        """scale_w * scale_d in float32, as every runtime computes it, shape of scale_w."""
        return self.scale_w * np.float32(self.grid.scale)

    def decode_weight(self) -> npt.NDArray[np.float32]:
        """The float32 weight that every exported form must give, in the stored weight's shape."""
        if self.weight is None:
            raise ValueError(f"layer {self.layer.name} has no weight")
        return dequantize_weight(self.weight, self.scale_w, axis=self.scale_axis)

    def decode_bias(self) -> npt.NDArray[np.float32]:
        """The float32 bias that every exported form must give, shape (out_channels,)."""
        if self.bias is None:
            raise ValueError(f"layer {self.layer.name} has no bias")
        return self.bias.astype(np.float32) * self.bias_scale()

    def activation_table(self) -> npt.NDArray[np.int8] | None:
        """Level -> kept level, int8 array of shape (256,) indexed by q + 128; None without activation NUQ."""
        if self.activation_levels is None:
            return None
        return nearest_level_table(np.array(self.activation_levels)).astype(np.int8)


def quantized_layers(model: Model, records: Mapping[str, LayerRecord]) -> tuple[QuantizedLayer, ...]:
    """Apply a record to a model's layers.

    Args:
        model: The float model.
        records: Layer name -> factors.

    Returns:
        The layers that the record names, in graph order.

    Raises:
        RecordError: A record does not fit its layer, or names a layer that the model does not have.
    """
    known = {layer.name for layer in model.layers}
    for name in records:
        if name not in known:
            raise RecordError(
                f"find {name} failure in model {model.path}: there is no such layer.",
                remedy="Use the model that the record was made for, or calibrate again.",
            )
    layers = [layer for layer in model.layers if layer.name in records]
    for layer in layers:
        _check_tied(layer, records)
    return tuple(quantize_layer(model, layer, records[layer.name]) for layer in layers)


def quantize_layer(model: Model, layer: Layer, record: LayerRecord) -> QuantizedLayer:
    """Apply a record to one layer.

    Raises:
        RecordError: It does not fit the layer.
    """
    if record.scale_d is None:
        raise RecordError(
            f"cannot find scale_d of layer {layer.name} in the record.",
            layer=layer.name,
            remedy="Calibrate again.",
        )
    grid = Grid(scale=record.scale_d, offset=record.offset_d)
    scale_w = np.array(record.scale_w, np.float32)
    weight = bias = None
    if layer.weight is not None and not record.float_weights:
        _check_scales(layer, scale_w)
        axis = layer.output_channel_axis if scale_w.size > 1 else None
        values = model.weight(layer.weight)
        if record.cluster:
            weight = quantize_to_levels(values, scale_w, record.cluster, axis=axis)
        else:
            weight = quantize_weight(values, scale_w, axis=axis)
        if layer.bias is not None:
            bias = _quantize_bias(layer, model.weight(layer.bias).reshape(-1), scale_w, record.scale_d)
    elif scale_w.size:
        raise RecordError(
            f"{layer.op_type} has no weights to quantize, but the record has scale_w.",
            layer=layer.name,
            remedy="Calibrate again.",
        )
    return QuantizedLayer(
        layer=layer,
        grid=grid,
        activation_levels=record.activation_cluster or None,
        weight=weight,
        scale_w=scale_w,
        weight_levels=record.cluster or None,
        bias=bias,
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
        if other is not None and _weight_factors(own) != _weight_factors(other):
            raise RecordError(
                f"It shares its weight with layer {name!r}, but the record has other scale_w or cluster for that one.",
                layer=layer.name,
                remedy="Calibrate again.",
            )


def _weight_factors(record: LayerRecord) -> tuple[object, ...]:
    return record.scale_w, record.cluster, record.float_weights


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
