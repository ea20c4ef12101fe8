"""Caffe pairs for tests, written as messages: no Caffe is needed for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from amct_lite.files.protos import message_class

RESIDUAL = """
name: "residual"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 stride: 1 bias_term: false }
}
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU6" bottom: "conv1" top: "conv1" }
layer {
  name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 2 dilation: 1 }
}
layer {
  name: "depthwise" type: "Convolution" bottom: "conv1" top: "depthwise"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 8 }
}
layer { name: "sum" type: "Eltwise" bottom: "conv2" bottom: "depthwise" top: "sum" }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }
layer {
  name: "pool1" type: "Pooling" bottom: "sum" top: "pool1" pooling_param { pool: MAX kernel_size: 3 stride: 2 }
}
layer {
  name: "up" type: "Deconvolution" bottom: "pool1" top: "up"
  convolution_param { num_output: 6 kernel_size: 2 stride: 2 pad: 1 group: 2 }
}
layer {
  name: "pool2" type: "Pooling" bottom: "up" top: "pool2"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }
}
layer {
  name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" inner_product_param { num_output: 16 transpose: true }
}
layer { name: "relu3" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 5 } }
layer {
  name: "rows" type: "InnerProduct" bottom: "pool2" top: "rows" inner_product_param { num_output: 4 axis: 3 }
}
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
"""

RESIDUAL_BLOBS: dict[str, Sequence[tuple[int, ...]]] = {
    "conv1": [(8, 3, 3, 3)],
    "conv2": [(8, 4, 3, 3), (8,)],
    "depthwise": [(8, 1, 3, 3), (8,)],
    "up": [(8, 3, 2, 2), (6,)],
    "ip1": [(6 * 6 * 6, 16), (16,)],
    "ip2": [(5, 16), (5,)],
    "rows": [(4, 6), (4,)],
}


def write_pair_of(
    folder: Path, prototxt: str, blobs: Mapping[str, Sequence[np.ndarray]], name: str = "net"
) -> tuple[Path, Path]:
    """Write a prototxt and a caffemodel with the weights given by layer."""
    network = text_format.Parse(prototxt, message_class("caffe", "caffe.NetParameter")())
    for layer in network.layer:
        for array in blobs.get(layer.name, ()):
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.data.extend(np.asarray(array, np.float32).ravel().tolist())
    paths = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
    paths[0].write_text(prototxt)
    paths[1].write_bytes(network.SerializeToString())
    return paths


def residual_pair(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """A network with everything that can be quantized, a folded BatchNorm and Scale, ReLU6, Eltwise, poolings."""
    rng = np.random.default_rng(seed)
    blobs = {
        name: [rng.normal(0, 0.5 / np.sqrt(np.prod(shape[1:])), shape) for shape in shapes]
        for name, shapes in RESIDUAL_BLOBS.items()
    }
    blobs["bn1"] = [rng.normal(0, 0.5, 8), rng.uniform(0.5, 2, 8), np.array([1.0])]
    blobs["scale1"] = [rng.uniform(0.5, 1.5, 8), rng.normal(0, 0.5, 8)]
    return write_pair_of(folder, RESIDUAL, blobs)
