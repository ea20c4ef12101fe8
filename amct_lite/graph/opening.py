"""Open a network in whatever format it comes: the one place that tells formats apart."""

import os
from collections.abc import Collection
from pathlib import Path

from amct_lite.errors import ModelError
from amct_lite.graph.model import Model, load_model

__all__ = ["is_caffe", "open_model", "refuse_weights"]

StrPath = str | os.PathLike[str]

_CAFFE_ENDINGS = (".prototxt", ".pbtxt")


def is_caffe(model_file: StrPath, weights_file: StrPath | None = None) -> bool:
    """Whether a model file is a Caffe network: by its name, or by that of the weights that come with it."""
    with_caffemodel = weights_file is not None and Path(weights_file).suffix.lower() == ".caffemodel"
    is_onnx = Path(model_file).suffix.lower() in (".onnx", ".ort")
    return Path(model_file).suffix.lower() in _CAFFE_ENDINGS or (with_caffemodel and not is_onnx)


def refuse_weights(model_file: StrPath, weights_file: StrPath | None) -> None:
    """Refuse a weights file that comes with a model that is no Caffe network.

    Raises:
        ModelError: There is one.
    """
    if weights_file is not None:
        raise ModelError(
            f"A weights file belongs to a Caffe network, but {model_file} is no prototxt. Got {str(weights_file)!r}.",
            remedy="For an ONNX model leave weights_file out: it holds its weights itself.",
        )


def open_model(
    model_file: StrPath,
    weights_file: StrPath | None = None,
    *,
    fold_batch_norm: bool = True,
    skip_fusion_layers: Collection[str] = (),
) -> Model:
    """Load a network.

    Args:
        model_file: An ONNX file, or a Caffe network (.prototxt).
        weights_file: The caffemodel of a Caffe network; None for ONNX, whose model file holds the weights.
        fold_batch_norm: Whether BatchNormalization is folded into the layer before it.
        skip_fusion_layers: Names of the layers that keep their BatchNormalization.

    Raises:
        AmctError: The network cannot be loaded, or model and weights file are mixed up.
    """
    if Path(model_file).suffix.lower() == ".caffemodel":
        raise ModelError(
            f"The model file {model_file} is a caffemodel, which holds only weights.",
            remedy="Give the prototxt as model_file and the caffemodel as weights_file.",
        )
    if is_caffe(model_file, weights_file):
        from amct_lite.caffe.model import load_caffe_model

        return load_caffe_model(
            model_file, weights_file, fold_batch_norm=fold_batch_norm, skip_fusion_layers=skip_fusion_layers
        )
    refuse_weights(model_file, weights_file)
    return load_model(model_file, fold_batch_norm=fold_batch_norm, skip_fusion_layers=skip_fusion_layers)
