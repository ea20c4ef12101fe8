"""Open a network in whatever format it comes: the one place that tells formats apart."""

import os
from collections.abc import Collection

from amct_lite.errors import ModelError
from amct_lite.graph.model import Model, load_model

__all__ = ["open_model"]

StrPath = str | os.PathLike[str]


def open_model(
    model_file: StrPath,
    weights_file: StrPath | None = None,
    *,
    fold_batch_norm: bool = True,
    skip_fusion_layers: Collection[str] = (),
) -> Model:
    """Load a network.

    Args:
        model_file: An ONNX file.
        weights_file: None for ONNX, whose model file holds the weights.
        fold_batch_norm: Whether BatchNormalization is folded into the layer before it.
        skip_fusion_layers: Names of the layers that keep their BatchNormalization.

    Raises:
        AmctError: The network cannot be loaded; see `load_model`.
    """
    if weights_file is not None:
        raise ModelError(
            f"A weights file belongs to a Caffe model, which this version does not read. Got {str(weights_file)!r}.",
            remedy="For an ONNX model leave weights_file out: it holds its weights itself.",
        )
    return load_model(model_file, fold_batch_norm=fold_batch_norm, skip_fusion_layers=skip_fusion_layers)
