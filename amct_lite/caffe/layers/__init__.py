"""One file per family of layers; the registry of all translators."""

from amct_lite.caffe.layers import (
    activation,
    combination,
    convolution,
    detection,
    inner_product,
    normalization,
    passing,
    pooling,
    python_layer,
    recurrent,
    resizing,
    shape,
    statistics,
)
from amct_lite.caffe.translation import Translator

__all__ = ["TRANSLATORS"]

TRANSLATORS: dict[str, Translator] = {
    **activation.TRANSLATORS,
    **combination.TRANSLATORS,
    **convolution.TRANSLATORS,
    **detection.TRANSLATORS,
    **inner_product.TRANSLATORS,
    **normalization.TRANSLATORS,
    **passing.TRANSLATORS,
    **pooling.TRANSLATORS,
    **python_layer.TRANSLATORS,
    **recurrent.TRANSLATORS,
    **resizing.TRANSLATORS,
    **shape.TRANSLATORS,
    **statistics.TRANSLATORS,
}
"""Caffe layer type -> its translator."""
