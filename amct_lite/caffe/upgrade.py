"""Networks of old form become today's: V0 -> V1 -> `layer`, as Caffe's own tool upgrade_net_proto does it.

Each step takes the layers as the file has them and returns copies; a step that finds nothing old returns them as they
are. Weights are not upgraded here: of an old caffemodel only names and blobs are needed, see `caffe/blobs.py`.
"""

from collections.abc import Sequence
from typing import Any

from amct_lite.caffe.upgrade_v0 import upgrade_v0_layers
from amct_lite.errors import ModelError
from amct_lite.files.protos import message_class

__all__ = ["V1_TYPES", "upgrade_layers"]

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "CROP": "Crop",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
"""Names of layer types in V1 (the schema's enum) -> today's."""

_DATA_PARAMS = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}
_TRANSFORMS = ("scale", "mean_file", "crop_size", "mirror")
# Fields that V1 and today's message share but that mean something else, and the message's own of a V0 layer.
_NOT_COPIED = {"layer", "type", "param", "blob_share_mode", "blobs_lr", "weight_decay"}


def upgrade_layers(network: Any, lines: Sequence[int | None]) -> list[tuple[Any, int | None]]:
    """A network's layers by today's rules.

    Args:
        network: A NetParameter; stays as it is.
        lines: The prototxt's line of each layer.

    Returns:
        A LayerParameter of its own for each layer, and its line. V0's padding layers have become their consumers' pad.

    Raises:
        ModelError: The network mixes forms, or an old layer's type is not known.
    """
    if network.layers and network.layer:
        raise ModelError(
            "The network has both `layer` and `layers`, so Caffe would not read it either.",
            remedy="Write all layers in one form; `layer` is today's.",
        )
    upgraded = []
    if network.layers:
        for old, line in upgrade_v0_layers(list(zip(network.layers, lines, strict=True))):
            layer = _upgrade_v1(old)
            _move_transforms(layer)
            upgraded.append((layer, line))
    else:
        for layer, line in zip(network.layer, lines, strict=True):
            copy = message_class("caffe", "caffe.LayerParameter")()
            copy.CopyFrom(layer)
            upgraded.append((copy, line))
    for layer, _ in upgraded:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            # The three blobs are statistics, which old definitions had to protect from the solver by lr_mult: 0.
            del layer.param[:]
    return upgraded


def _upgrade_v1(old: Any) -> Any:
    """A LayerParameter from a V1LayerParameter without V0 layer."""
    new = message_class("caffe", "caffe.LayerParameter")()
    kind = old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name
    if V1_TYPES[kind]:
        new.type = V1_TYPES[kind]
    for field, value in old.ListFields():
        if field.name in _NOT_COPIED:
            continue
        if field.message_type is None and not isinstance(value, str | int | float | bool):
            getattr(new, field.name).extend(value)
        elif field.message_type is None:
            setattr(new, field.name, value)
        elif hasattr(value, "add"):
            getattr(new, field.name).MergeFrom(value)
        else:
            getattr(new, field.name).CopyFrom(value)
    for index in range(max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))):
        spec = new.param.add()
        if index < len(old.param):
            spec.name = old.param[index]
        if index < len(old.blob_share_mode):
            spec.share_mode = old.blob_share_mode[index]
        if index < len(old.blobs_lr):
            spec.lr_mult = old.blobs_lr[index]
        if index < len(old.weight_decay):
            spec.decay_mult = old.weight_decay[index]
    return new


def _move_transforms(layer: Any) -> None:
    """Move scale, mean_file, crop_size and mirror from a data layer's own message to transform_param."""
    if layer.type not in _DATA_PARAMS or not layer.HasField(_DATA_PARAMS[layer.type]):
        return
    source = getattr(layer, _DATA_PARAMS[layer.type])
    for name in _TRANSFORMS:
        if source.HasField(name):
            setattr(layer.transform_param, name, getattr(source, name))
            source.ClearField(name)
