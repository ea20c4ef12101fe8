"""Translators: Dropout, Silence and other layers that compute nothing at test time."""

import numpy as np

from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]


def _dropout(translation: Translation, layer: CaffeLayer) -> None:
    """Dropout: at test time the bottom as it is, since Caffe scales while it trains.

    Intel's `scale_train: false` scales at test time instead, by `1 - dropout_ratio`.
    """
    param = layer.params.dropout_param
    value = translation.value(layer.bottoms[0])
    if param.sample_weights_test:
        raise unsupported(layer, "It drops at random at test time, too.", "Take sample_weights_test out.")
    if not param.scale_train:
        kept = translation.constant(layer, "kept", np.float32(1 - param.dropout_ratio))
        value = translation.node("Mul", [value, kept], name=layer.name)
    translation.bind(layer.tops[0], value, translation.shape(layer.bottoms[0]))


def _silence(_translation: Translation, _layer: CaffeLayer) -> None:
    """Silence: reads its bottoms and makes nothing, so that they are no outputs of the network."""


def _refusal(cause: str, remedy: str) -> Translator:
    def refuse(_translation: Translation, layer: CaffeLayer) -> None:
        raise unsupported(layer, cause, remedy)

    return refuse


_LOSS = _refusal(
    "It compares with labels, which a network in use does not have.", "Take the layer out of the deploy prototxt."
)
_SOFTMAX_LOSS = _refusal(
    "It compares with labels, which a network in use does not have.",
    "Replace the layer by Softmax with the first bottom alone.",
)
_SIGMOID_LOSS = _refusal(
    "It compares with labels, which a network in use does not have.",
    "Replace the layer by Sigmoid with the first bottom alone.",
)
_DATA = _refusal(
    "It reads data of its own, while here the inputs are given from outside.",
    "Replace the layer by Input with the shape of its top, and leave its labels out.",
)

TRANSLATORS: dict[str, Translator] = {
    "Accuracy": _LOSS,
    "ContrastiveLoss": _LOSS,
    "Data": _DATA,
    "Dropout": _dropout,
    "DummyData": _DATA,
    "EuclideanLoss": _LOSS,
    "HDF5Data": _DATA,
    "HingeLoss": _LOSS,
    "ImageData": _DATA,
    "InfogainLoss": _LOSS,
    "MemoryData": _DATA,
    "MultinomialLogisticLoss": _LOSS,
    "SigmoidCrossEntropyLoss": _SIGMOID_LOSS,
    "Silence": _silence,
    "SoftmaxWithLoss": _SOFTMAX_LOSS,
    "WindowData": _DATA,
}
