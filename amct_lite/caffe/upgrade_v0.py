"""V0 layers, `layers { layer { name: "conv1" type: "conv" num_output: 8 } bottom: "data" top: "conv1" }`, become V1."""

import warnings
from collections.abc import Sequence
from typing import Any

from amct_lite.errors import ModelError
from amct_lite.files.protos import message_class

__all__ = ["upgrade_v0_layers"]

_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# V0 field -> {V0 type: path of the V1 field}; "*" for every type.
_FIELDS: dict[str, dict[str, str]] = {
    "num_output": {"conv": "convolution_param.num_output", "innerproduct": "inner_product_param.num_output"},
    "biasterm": {"conv": "convolution_param.bias_term", "innerproduct": "inner_product_param.bias_term"},
    "weight_filler": {"conv": "convolution_param.weight_filler", "innerproduct": "inner_product_param.weight_filler"},
    "bias_filler": {"conv": "convolution_param.bias_filler", "innerproduct": "inner_product_param.bias_filler"},
    "pad": {"conv": "convolution_param.pad", "pool": "pooling_param.pad"},
    "kernelsize": {"conv": "convolution_param.kernel_size", "pool": "pooling_param.kernel_size"},
    "group": {"conv": "convolution_param.group"},
    "stride": {"conv": "convolution_param.stride", "pool": "pooling_param.stride"},
    "pool": {"pool": "pooling_param.pool"},
    "dropout_ratio": {"dropout": "dropout_param.dropout_ratio"},
    "local_size": {"lrn": "lrn_param.local_size"},
    "alpha": {"lrn": "lrn_param.alpha"},
    "beta": {"lrn": "lrn_param.beta"},
    "k": {"lrn": "lrn_param.k"},
    "source": {
        "data": "data_param.source",
        "hdf5_data": "hdf5_data_param.source",
        "images": "image_data_param.source",
        "window_data": "window_data_param.source",
        "infogain_loss": "infogain_loss_param.source",
    },
    "batchsize": {
        "data": "data_param.batch_size",
        "hdf5_data": "hdf5_data_param.batch_size",
        "images": "image_data_param.batch_size",
        "window_data": "window_data_param.batch_size",
    },
    "rand_skip": {"data": "data_param.rand_skip", "images": "image_data_param.rand_skip"},
    "shuffle_images": {"images": "image_data_param.shuffle"},
    "new_height": {"images": "image_data_param.new_height"},
    "new_width": {"images": "image_data_param.new_width"},
    "concat_dim": {"concat": "concat_param.concat_dim"},
    "det_fg_threshold": {"window_data": "window_data_param.fg_threshold"},
    "det_bg_threshold": {"window_data": "window_data_param.bg_threshold"},
    "det_fg_fraction": {"window_data": "window_data_param.fg_fraction"},
    "det_context_pad": {"window_data": "window_data_param.context_pad"},
    "det_crop_mode": {"window_data": "window_data_param.crop_mode"},
    "hdf5_output_param": {"hdf5_output": "hdf5_output_param"},
    "scale": {"*": "transform_param.scale"},
    "meanfile": {"*": "transform_param.mean_file"},
    "cropsize": {"*": "transform_param.crop_size"},
    "mirror": {"*": "transform_param.mirror"},
    "name": {"*": "name"},
    "blobs": {"*": "blobs"},
    "blobs_lr": {"*": "blobs_lr"},
    "weight_decay": {"*": "weight_decay"},
}


def upgrade_v0_layers(layers: Sequence[tuple[Any, int | None]]) -> list[tuple[Any, int | None]]:
    """V1 layers without a V0 layer in them.

    Args:
        layers: V1LayerParameter messages, each with its line. They stay as they are.

    Returns:
        The same where no layer is of V0; copies otherwise, without the padding layers.

    Raises:
        ModelError: A layer's type is not known, or a padding layer is followed by what cannot pad.
    """
    if not any(layer.HasField("layer") for layer, _ in layers):
        return list(layers)
    return [(_upgrade(layer, line), line) for layer, line in _merge_padding(layers)]


def _merge_padding(layers: Sequence[tuple[Any, int | None]]) -> list[tuple[Any, int | None]]:
    """Give what each padding layer adds to the convolution or pooling behind it, and leave the padding layer out."""
    producers: dict[str, Any] = {}
    merged = []
    for original, line in layers:
        layer = message_class("caffe", "caffe.V1LayerParameter")()
        layer.CopyFrom(original)
        for index, blob in enumerate(layer.bottom):
            source = producers.get(blob)
            if source is None or source.layer.type != "padding":
                continue
            if layer.layer.type not in ("conv", "pool") or len(source.bottom) != 1:
                raise _refused(layer, line, "reads a padding layer, which only a convolution or a pooling can")
            layer.layer.pad = source.layer.pad
            layer.bottom[index] = source.bottom[0]
        if layer.layer.type != "padding":
            merged.append((layer, line))
        for blob in layer.top:
            producers[blob] = layer
    return merged


def _upgrade(layer: Any, line: int | None) -> Any:
    if not layer.HasField("layer"):
        return layer
    old = layer.layer
    new = message_class("caffe", "caffe.V1LayerParameter")()
    new.CopyFrom(layer)
    new.ClearField("layer")
    if old.HasField("type"):
        if old.type not in _TYPES:
            raise _refused(layer, line, f"has the type {old.type!r}, which V0 does not have")
        new.type = new.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name[_TYPES[old.type]].number
    for field, value in old.ListFields():
        if field.name == "type":
            continue
        targets = _FIELDS.get(field.name, {})
        target = targets.get(old.type) or targets.get("*")
        if target is None:
            # Caffe says so and goes on: such a parameter never had an effect.
            warnings.warn(
                f"Layer {old.name!r}: a V0 layer of type {old.type!r} does not take {field.name!r}; it is left out.",
                stacklevel=5,
            )
            continue
        _assign(new, target, value)
    return new


def _assign(message: Any, target: str, value: Any) -> None:
    """Set a field by its path; a repeated one gets a single value appended, or all of a repeated value."""
    *parents, name = target.split(".")
    for parent in parents:
        message = getattr(message, parent)
    if hasattr(value, "DESCRIPTOR"):
        getattr(message, name).CopyFrom(value)
    elif hasattr(getattr(message, name), "extend"):
        getattr(message, name).extend([value] if isinstance(value, int | float) else value)
    else:
        setattr(message, name, value)


def _refused(layer: Any, line: int | None, cause: str) -> ModelError:
    where = "" if line is None else f"line {line}: "
    return ModelError(
        f"{where}the V0 layer {cause}.",
        layer=layer.layer.name or layer.name,
        remedy="Upgrade the network with Caffe's upgrade_net_proto_text, or correct the layer.",
    )
