"""Whether a Caffe pair is a float one, with BatchNorm as at inference: what a record can be applied to."""

from pathlib import Path

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.caffe.prototxt import read_prototxt
from amct_lite.errors import ModelError

__all__ = ["refuse_quantized_layers", "refuse_quantized_network"]

# AMCT's layers; of those of the fake-quant pair that amct_lite writes, the type is Python.
_QUANTIZED_TYPES = frozenset(
    {"Quant", "DeQuant", "AntiQuant", "IFMR", "SearchN", "ActivationQAT", "WeightQAT", "LSTMQuant", "LSTMCalibration"}
    | {"RetrainDataQuant", "RetrainWeightQuant"}
)
_FAKE_QUANT_LAYER = "FakeQuantLayer"


def refuse_quantized_layers(prototxt: Path) -> None:
    """Refuse a network with layers of AMCT's, before its translation fails at them.

    Raises:
        FileError: The file cannot be read.
        ModelError: It is no prototxt, or has such a layer.
    """
    for layer in read_prototxt(prototxt).proto.layer:
        if layer.type in _QUANTIZED_TYPES or layer.python_param.layer == _FAKE_QUANT_LAYER:
            raise _quantized(prototxt, f"the layer {layer.name!r} of type {layer.type}")


def refuse_quantized_network(network: CaffeNetwork) -> None:
    """Refuse a network with integers in its caffemodel, or with a BatchNorm that takes the statistics of its batch.

    Raises:
        ModelError: It is one of these.
    """
    for layer in network.layers:
        param = layer.params.batch_norm_param
        if layer.type == "BatchNorm" and param.HasField("use_global_stats") and not param.use_global_stats:
            raise ModelError(
                "BatchNorm use_global_stats must be 1, but it is false: its statistics would be those of each batch.",
                layer=layer.name,
                remedy="Give the network for inference, with use_global_stats: true.",
            )
    for layer in () if network.weights is None else network.weights.layer:
        if any(blob.int8_data or blob.int32_data for blob in layer.blobs):
            raise _quantized(network.caffemodel or network.prototxt, f"INT8 or INT32 data in the layer {layer.name!r}")


def _quantized(path: Path, what: str) -> ModelError:
    return ModelError(
        f"The model {path} is quantized already: it has {what}.",
        remedy="Give the float network that the record was made for.",
    )
