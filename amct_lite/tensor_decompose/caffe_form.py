"""The split convolutions of a Caffe network, as a pair."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.export.caffe_blobs import float_blob
from amct_lite.export.caffe_editor import CaffeEditor
from amct_lite.tensor_decompose.plan import SplitConvolution, Window

__all__ = ["decomposed_pair"]


def decomposed_pair(network: CaffeNetwork, splits: Sequence[SplitConvolution]) -> tuple[Any, Any]:
    """The pair (prototxt, caffemodel) in which two layers stand for each convolution that is split.

    The second one keeps the top and the bias. Layers that only training uses are left out.

    Args:
        network: The network; it is not changed.
        splits: Its convolutions to split.
    """
    editor = CaffeEditor(network)
    for split in splits:
        second = editor.layer(split.layer.name)
        first = type(second)()
        first.CopyFrom(second)
        first.name, second.name = (editor.new_layer_name(name) for name in split.names)
        between = editor.new_blob(first.name)
        del first.top[:], second.bottom[:]
        first.top.append(between)
        second.bottom.append(between)
        first.convolution_param.bias_term = False
        first.convolution_param.num_output = split.factors.rank
        # How fast a bias learns is nothing to a layer without one.
        del first.param[1:]
        _set_filter(first, split.factors.vertical, split.window.vertical())
        _set_filter(second, split.factors.horizontal, split.window.horizontal())
        del first.blobs[1:]
        editor.insert_before(second.name, first)
    return editor.pair()


def _set_filter(message: Any, weight: npt.NDArray[np.float32], window: Window) -> None:
    param = message.convolution_param
    for name in ("kernel_size", "kernel_h", "kernel_w", "pad", "stride", "dilation"):
        param.ClearField(name)
    param.kernel_h, param.kernel_w = weight.shape[2:]
    param.pad_h, param.pad_w = window.pads[:2]
    param.stride_h, param.stride_w = window.strides
    if max(window.dilations) > 1:
        param.dilation.extend(window.dilations)
    message.blobs[0].CopyFrom(float_blob(weight))
