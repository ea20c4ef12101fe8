"""N2UQLearner: weights and activations of two to four bits, thresholds learned, levels even: integers for hardware.

Source: Liu et al., "Nonuniform-to-Uniform Quantization" (CVPR 2022, arXiv 2111.14826). The parts are in
`learned_thresholds`, `generalized_straight_through` and `entropy_preserving_weight`.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import onnx_ir as ir

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.specification import Refine
from amct_lite.errors import ParameterError
from amct_lite.files.activation_params import MinMaxParams, NuqActivationParams
from amct_lite.files.codebook_params import CodebookParams
from amct_lite.files.config import ArqParams, FloatWeightParams, LayerConfig
from amct_lite.files.record import LayerRecord
from amct_lite.learn.accumulator_bias import AccumulatorBias
from amct_lite.learn.bit_widths import bits_by_layer
from amct_lite.learn.eight_bit_layers import SymmetricWeight, learned_layer_of_integers
from amct_lite.learn.entropy_preserving_weight import EntropyPreservingWeight
from amct_lite.learn.input_quantizer import InputQuantizer
from amct_lite.learn.learned_thresholds import LearnedThresholds
from amct_lite.learn.learner import Learner
from amct_lite.learn.saving import Learned
from amct_lite.quantize.plan import CODEBOOK_OVERHEAD_BYTES
from amct_lite.quantize.weight_rows import weight_layout
from amct_lite.types import Layer

__all__ = ["N2UQLearner"]

StrPath = str | PathLike[str]

# Odd levels of more bits would not fit int8, and the fine grid of a table has 256.
WEIGHT_BITS = range(2, 8)
ACTIVATION_BITS = range(2, 8)
DEFAULT_BITS = 2


class N2UQLearner(Learner):
    """Fine-tunes a network to weights and activations of few bits that int8 hardware runs.

    Example:
        learner = N2UQLearner("net.onnx", weight_bits=2, activation_bits=2)
        learner.fit(ArrayBatches(images, labels), epochs=3, validation=batches)
        learner.save("out/net")

    Attributes:
        weight_bits: Layer -> bits of its weights.
        activation_bits: Layer -> bits of its input.
    """

    def __init__(
        self,
        model_file: StrPath,
        weights_file: StrPath | None = None,
        *,
        weight_bits: int | Mapping[str, int] = 2,
        activation_bits: int | Mapping[str, int] = 2,
        quantize_all_layers: bool = False,
        quantize_downsampling: bool = True,
        outer_bits: int | None = None,
        skip_layers: Collection[str] = (),
        fold_batch_norm: bool = True,
        quant_delay: int = 0,
        freeze_bn_delay: int | None = None,
    ) -> None:
        """Load a network and put quantizers into it.

        Args:
            model_file: An ONNX file, or a Caffe network (.prototxt).
            weights_file: The caffemodel of a Caffe network.
            weight_bits: 2 to 7, for all layers or by name, others having 2.
            activation_bits: 2 to 7, likewise: of each layer's input.
            quantize_all_layers: Whether the first and the last layer with weights get as few bits as the others.
            outer_bits: Bits of those two otherwise: 8, or None for float, as in the paper.
            quantize_downsampling: False leaves 1x1 convolutions with a stride in float, as networks of the paper's
                comparison do; it quantizes them.
            skip_layers: Names of layers that are left alone as well.
            fold_batch_norm: See `Learner`.
            quant_delay: See `Learner`.
            freeze_bn_delay: See `Learner`.

        Raises:
            ModelError: The network has operators that cannot be trained, all of which are named.
            ParameterError: The bits are not allowed, or no layer is left.
        """
        super().__init__(
            model_file,
            weights_file,
            quantize_all_layers=quantize_all_layers,
            skip_layers=skip_layers,
            fold_batch_norm=fold_batch_norm,
            quant_delay=quant_delay,
            freeze_bn_delay=freeze_bn_delay,
        )
        if outer_bits not in (None, 8):
            raise ParameterError(f"The 'outer_bits' parameter must be 8 or None. Got {outer_bits!r} instead.")
        if not quantize_downsampling:
            names = {layer.name for layer in self.layers if not _is_downsampling(self.model.ir, layer)}
            self.layers = tuple(layer for layer in self.layers if {layer.name, *layer.tied_with} <= names)
            if not self.layers:
                raise ParameterError(
                    "The only layers left to quantize are 1x1 convolutions with a stride.",
                    remedy="Set quantize_downsampling to True.",
                )
        self.weight_bits = bits_by_layer(weight_bits, self.layers, WEIGHT_BITS, DEFAULT_BITS, "weight_bits")
        self.activation_bits = bits_by_layer(
            activation_bits, self.layers, ACTIVATION_BITS, DEFAULT_BITS, "activation_bits"
        )
        self._weights: dict[str, EntropyPreservingWeight] = {}
        self._inputs: dict[str, LearnedThresholds] = {}
        self._outer: dict[str, tuple[SymmetricWeight, InputQuantizer]] = {}
        weighted = [layer for layer in self.model.layers if layer.weight is not None and layer.blocked is None]
        outer_bits = None if quantize_all_layers else outer_bits
        self._outer_layers = [
            layer
            for layer in (weighted[0], weighted[-1])
            if outer_bits is not None and layer.name not in skip_layers and not layer.tied_with
        ]
        for layer in self.layers:
            assert layer.weight is not None
            if layer.weight not in self._weights:
                channel_wise = self.target.allows_channel_wise(layer)
                quantizer = EntropyPreservingWeight(
                    weight_layout(layer), self.weight_bits[layer.name], channel_wise=channel_wise
                )
                self._weights[layer.weight] = quantizer
                self.quantize_weight(layer, quantizer)
            self._inputs[layer.name] = LearnedThresholds(self.activation_bits[layer.name])
            self.quantize_input(layer, self._inputs[layer.name])
        for layer in self._outer_layers:
            assert layer.weight is not None
            channel_wise = self.target.allows_channel_wise(layer)
            outer = SymmetricWeight(weight_layout(layer), channel_wise=channel_wise), InputQuantizer(8)
            self._outer[layer.name] = outer
            self.quantize_weight(layer, outer[0])
            self.quantize_input(layer, outer[1])
        for layer in (*self.layers, *self._outer_layers):
            if layer.bias is not None:
                self.graph.transform_weight(layer.bias, AccumulatorBias(partial(self._scales, layer)))

    def options(self) -> Mapping[str, Any]:
        """See `Learner`."""
        bits = {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits}
        return {"layers": [*self._inputs, *self._outer], **bits}

    def learned(self) -> Mapping[str, Learned]:
        """See `Learner`."""
        found = {layer.name: self._learned(layer) for layer in self.layers}
        for layer in self._outer_layers:
            weight, bias = (None if name is None else self.graph.parameter(name) for name in (layer.weight, layer.bias))
            found[layer.name] = learned_layer_of_integers(layer, weight, bias, *self._outer[layer.name])
        return found

    def _scales(self, layer: Layer) -> Any:
        """The scales of a layer's weight and of its input; None before the first batch."""
        weight = self.graph.parameter(layer.weight or "")
        if layer.name in self._outer:
            quantizer, inputs = self._outer[layer.name]
            return (quantizer.scales(weight), inputs.grid()[0].scale) if int(inputs.batches) else None
        thresholds = self._inputs[layer.name]
        if float(thresholds.unit) == 0.0:
            return None
        return self._weights[layer.weight or ""].scales(weight), thresholds.grid_and_bounds()[0].scale

    def _learned(self, layer: Layer) -> Learned:
        assert layer.weight is not None
        grid, kept = self._inputs[layer.name].levels_and_bounds()
        quantizer = self._weights[layer.weight]
        integers, scales = quantizer.levels_and_scales(self.graph.parameter(layer.weight))
        bits = self.weight_bits[layer.name]
        codebook = _codebook(integers, scales, bits)
        ratio = NuqActivationParams(target_compression_ratio=len(kept.levels) / 256)
        activation = MinMaxParams(act_algo="minmax", nuq=ratio)
        record = LayerRecord(
            scale_d=grid.scale,
            offset_d=grid.offset,
            activation_cluster=tuple(map(int, kept.levels)),
            activation_cluster_cost=kept.costs(),
        )
        int8_bytes = layer.num_weights + 4 * scales.size
        if codebook.stored_bytes + CODEBOOK_OVERHEAD_BYTES < int8_bytes:
            params = CodebookParams(
                wts_algo="codebook_quantize",
                num_bits=bits,
                channel_wise=quantizer.channel_wise,
                level_type=LevelType.INT8,
                refine=Refine.NONE,
            )
            return Learned(_config(activation, params), replace(record, codebook=codebook))
        if int8_bytes < 4 * layer.num_weights:
            # One bit more than the levels need: they are the odd ones among twice as many.
            width = max(4, bits + 1)
            arq = ArqParams.model_validate({"num_bits": width, "channel_wise": quantizer.channel_wise})
            found = replace(record, scale_w=tuple(map(float, scales)), offset_w=(0,) * scales.size, weight_bits=width)
            return Learned(_config(activation, arq), found)
        floats = FloatWeightParams(wts_algo="none")
        return Learned(_config(activation, floats), replace(record, float_weights=True))


def _config(activation: Any, weight: Any) -> LayerConfig:
    return LayerConfig(activation_quant_params=activation, weight_quant_params=weight)


def _codebook(integers: Any, scales: Any, bits: int) -> Codebook:
    steps = 2**bits - 1
    return Codebook(
        tables=np.arange(-steps, steps + 1, 2, dtype=np.float32).reshape(1, -1, 1),
        codes=((integers.astype(np.int16) + steps) // 2).astype(np.uint8),
        scales=scales,
        num_rows=len(integers),
        rows_per_table=len(integers),
        level_type=LevelType.INT8,
    )


def _is_downsampling(model: ir.Model, layer: Layer) -> bool:
    """Whether a layer is a 1x1 convolution that leaves positions out."""
    if not layer.kernel_shape or any(size != 1 for size in layer.kernel_shape):
        return False
    node = next(node for node in model.graph if node.name == layer.node_name)
    strides = node.attributes["strides"].as_ints() if "strides" in node.attributes else ()
    return any(stride > 1 for stride in strides)
