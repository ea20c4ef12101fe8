"""What the uniform and the non-uniform learner have in common: levels for weights, a grid for inputs."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any

from amct_lite.codebook.level_type import LevelType
from amct_lite.errors import ParameterError
from amct_lite.learn.buckets import Buckets, BucketType, make_buckets
from amct_lite.learn.input_quantizer import InputQuantizer
from amct_lite.learn.learned_layer import learned_layer
from amct_lite.learn.learner import Learner
from amct_lite.learn.saving import Learned
from amct_lite.learn.weight_quantizers import LevelQuantizer
from amct_lite.quantize.weight_rows import weight_layout

__all__ = ["WeightLearner"]

FLOAT_BITS = 32
_SPLIT_REASON = "its buckets of {size} weights end within output channels of {columns}, which no codebook can say"


class WeightLearner(Learner):
    """A learner whose layers have levels for their weights and, where wanted, a grid for their inputs.

    Attributes:
        weight_bits: Layer name -> bits of a weight.
        activation_bits: Bits of the layers' inputs; 32 for float.
    """

    def __init__(
        self,
        model_file: str | PathLike[str],
        weights_file: str | PathLike[str] | None = None,
        *,
        weight_bits: int | Mapping[str, int] = 4,
        activation_bits: int = FLOAT_BITS,
        use_buckets: bool = False,
        bucket_type: str = "split",
        bucket_size: int = 256,
        quantize_all_layers: bool = False,
        skip_layers: Collection[str] = (),
        level_type: str = "float16",
        quant_delay: int = 0,
    ) -> None:
        """Load a network and put quantizers into it.

        Args:
            model_file: An ONNX file, or a Caffe network (.prototxt).
            weights_file: The caffemodel of a Caffe network.
            weight_bits: Bits of a weight, 1 to 8; or layer name -> bits, others having 4.
            activation_bits: Bits of the layers' inputs, 2 to 8, or 32 for float.
            use_buckets: Whether parts of a layer have levels of their own.
            bucket_type: "channel": each output channel; "split": `bucket_size` neighbouring weights, which can only be
                stored packed where that is whole channels.
            bucket_size: Weights of a bucket, for "split".
            quantize_all_layers: False leaves the first and the last layer alone.
            skip_layers: Names of layers that are left alone as well.
            level_type: How levels are stored, "float16" or "float32".
            quant_delay: Steps before weights and inputs are quantized.

        Raises:
            ParameterError: An option is out of its range.
            ModelError: The network cannot be loaded, or has operators that cannot be trained.
        """
        super().__init__(
            model_file,
            weights_file,
            quantize_all_layers=quantize_all_layers,
            skip_layers=skip_layers,
            quant_delay=quant_delay,
        )
        self.weight_bits = self._bits_by_layer(weight_bits)
        self.activation_bits = activation_bits
        if activation_bits != FLOAT_BITS and not 2 <= activation_bits <= 8:
            raise ParameterError(f"activation_bits must be 32 or in the range [2, 8]. Got {activation_bits!r} instead.")
        if bucket_type not in ("split", "channel"):
            raise ParameterError(f"bucket_type must be 'split' or 'channel'. Got {bucket_type!r} instead.")
        if level_type not in (LevelType.FLOAT16, LevelType.FLOAT32):
            raise ParameterError(f"level_type must be 'float16' or 'float32'. Got {level_type!r} instead.")
        kind = BucketType(bucket_type) if use_buckets else BucketType.LAYER
        self._level_type = LevelType(level_type)
        self._bucket_options = {"buckets": str(kind), **({"bucket_size": bucket_size} if kind == "split" else {})}
        self._weights: dict[str, LevelQuantizer] = {}
        self._inputs: dict[str, InputQuantizer] = {}
        for layer in self.layers:
            assert layer.weight is not None
            if layer.weight not in self._weights:
                buckets = make_buckets(weight_layout(layer), kind, bucket_size)
                weight = self.graph.parameter(layer.weight)
                quantizer = self.make_quantizer(buckets, self.weight_bits[layer.name], weight, self._level_type)
                self._weights[layer.weight] = quantizer
                self.quantize_weight(layer, quantizer)
            if activation_bits != FLOAT_BITS:
                self._inputs[layer.name] = InputQuantizer(activation_bits)
                self.quantize_input(layer, self._inputs[layer.name])

    @abstractmethod
    def make_quantizer(self, buckets: Buckets, num_bits: int, weight: Any, level_type: LevelType) -> LevelQuantizer:
        """The quantizer of a weight."""

    def options(self) -> Mapping[str, Any]:
        """What a checkpoint has to agree with."""
        bits = {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits}
        return {**bits, "level_type": str(self._level_type), **self._bucket_options}

    def learned(self) -> Mapping[str, Learned]:
        """Layer name -> its codebook and grid."""
        found = {}
        for layer in self.layers:
            assert layer.weight is not None
            quantizer = self._weights[layer.weight]
            codebook = quantizer.codebook(self.graph.parameter(layer.weight).detach())
            reason = _SPLIT_REASON.format(size=quantizer.buckets.size, columns=quantizer.buckets.layout.columns)
            found[layer.name] = learned_layer(codebook, reason, self._inputs.get(layer.name))
        return found

    def _bits_by_layer(self, weight_bits: int | Mapping[str, int]) -> dict[str, int]:
        given = weight_bits if isinstance(weight_bits, Mapping) else {layer.name: weight_bits for layer in self.layers}
        names = [layer.name for layer in self.layers]
        for name, bits in given.items():
            if name not in names:
                raise ParameterError(
                    f"weight_bits names the layer {name!r}, which is not quantized; those are {', '.join(names)}.",
                    remedy="Correct the name, or set quantize_all_layers to True.",
                )
            if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
                raise ParameterError(f"weight_bits must be ints in the range [1, 8]. Got {bits!r} instead.")
        return {name: given.get(name, 4) for name in names}
