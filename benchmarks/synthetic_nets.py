"""Networks in the shape of well-known ones with random weights, for measurements that need only the shape.

He-initialised weights from fixed seeds, and BatchNormalization whose statistics are those of a signal of unit power, so
that activations neither die nor explode. Input "x", float32, shape (N, 3, 224, 224); output "scores", shape (N, 1000).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["SYNTHETIC_NETS", "mobilenet_v2_like", "resnet18_like", "resnet50_like", "write_net"]


class _Builder:
    """A graph that grows by one operator a call."""

    def __init__(self, name: str) -> None:
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._name = name

    def constant(self, name: str, values: np.ndarray) -> str:
        self._initializers.append(numpy_helper.from_array(values, name))
        return name

    def operator(self, op_type: str, inputs: Sequence[str], **attributes: object) -> str:
        name = f"{op_type.lower()}{len(self._nodes)}"
        node = onnx.NodeProto(op_type=op_type, name=name, input=inputs, output=[f"{name}_out"])
        for key, value in attributes.items():
            integers = value if isinstance(value, list) else None
            node.attribute.append(
                onnx.AttributeProto(name=key, type=onnx.AttributeProto.INTS, ints=integers)
                if integers is not None
                else onnx.AttributeProto(name=key, type=onnx.AttributeProto.INT, i=int(str(value)))
            )
        self._nodes.append(node)
        return str(node.output[0])

    def convolution(
        self, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, group: int = 1, activation: str = "Relu"
    ) -> str:
        """Conv, BatchNormalization and an activation ("Relu", "Clip" at 6, or "" for none)."""
        inputs, outputs = channels
        fan_in = inputs // group * kernel * kernel
        weight = self._rng.normal(size=(outputs, inputs // group, kernel, kernel)) * np.sqrt(2 / fan_in)
        index = len(self._nodes)
        w = self.constant(f"w{index}", weight.astype(np.float32))
        pad = kernel // 2
        y = self.operator("Conv", [x, w], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=group)
        statistics = {
            "scale": self._rng.uniform(0.5, 1.0, outputs),
            "shift": self._rng.normal(size=outputs) * 0.1,
            "mean": self._rng.normal(size=outputs) * 0.1,
            "var": self._rng.uniform(0.8, 1.2, outputs),
        }
        names = [self.constant(f"{key}{index}", array.astype(np.float32)) for key, array in statistics.items()]
        y = self.operator("BatchNormalization", [y, *names])
        if activation == "Clip":
            ends = [
                self.constant(f"{end}{index}", np.array(value, np.float32)) for end, value in (("low", 0), ("high", 6))
            ]
            return self.operator("Clip", [y, *ends])
        return self.operator(activation, [y]) if activation else y

    def classifier(self, x: str, channels: int) -> onnx.ModelProto:
        """Mean over the image and an inner product, and with them the model."""
        x = self.operator("Flatten", [self.operator("GlobalAveragePool", [x])])
        w = self.constant("w_scores", (self._rng.normal(size=(channels, 1000)) / np.sqrt(channels)).astype(np.float32))
        b = self.constant("b_scores", (self._rng.normal(size=1000) * 0.1).astype(np.float32))
        x = self.operator("Gemm", [x, w, b])
        self._nodes[-1].output[0] = "scores"
        graph = onnx.GraphProto(name=self._name, node=self._nodes, initializer=self._initializers)
        for infos, name, shape in ((graph.input, "x", (3, 224, 224)), (graph.output, "scores", (1000,))):
            tensor = infos.add(name=name).type.tensor_type
            tensor.elem_type = onnx.TensorProto.FLOAT
            tensor.shape.dim.add(dim_param="N")
            for size in shape:
                tensor.shape.dim.add(dim_value=size)
        return onnx.ModelProto(ir_version=8, graph=graph, opset_import=[onnx.OperatorSetIdProto(domain="", version=13)])


def _resnet_stem(net: _Builder) -> str:
    x = net.convolution("x", (3, 64), 7, stride=2)
    return net.operator("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def resnet18_like() -> onnx.ModelProto:
    """ResNet-18: basic blocks of two 3 x 3 convolutions, (2, 2, 2, 2) of them (He et al. 2016, table 1)."""
    net = _Builder("resnet18_like")
    x, channels = _resnet_stem(net), 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = net.convolution(x, (channels, width), 3, stride)
            y = net.convolution(y, (width, width), 3, activation="")
            if stride != 1 or channels != width:
                x = net.convolution(x, (channels, width), 1, stride, activation="")
            x, channels = net.operator("Relu", [net.operator("Add", [x, y])]), width
    return net.classifier(x, channels)


def resnet50_like() -> onnx.ModelProto:
    """ResNet-50: bottlenecks of 1 x 1, 3 x 3 and 1 x 1, (3, 4, 6, 3) of them (He et al. 2016, table 1)."""
    net = _Builder("resnet50_like")
    x, channels = _resnet_stem(net), 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = net.convolution(x, (channels, width), 1)
            y = net.convolution(y, (width, width), 3, stride)
            y = net.convolution(y, (width, 4 * width), 1, activation="")
            if not block:
                x = net.convolution(x, (channels, 4 * width), 1, stride, activation="")
            x, channels = net.operator("Relu", [net.operator("Add", [x, y])]), 4 * width
    return net.classifier(x, channels)


def mobilenet_v2_like() -> onnx.ModelProto:
    """MobileNetV2: inverted residuals with ReLU6 (Sandler et al. 2018, table 2)."""
    net = _Builder("mobilenet_v2_like")
    x, channels = net.convolution("x", (3, 32), 3, stride=2, activation="Clip"), 32
    settings = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expansion, width, blocks, first_stride in settings:
        for block in range(blocks):
            stride, hidden = first_stride if not block else 1, channels * expansion
            y = x if expansion == 1 else net.convolution(x, (channels, hidden), 1, activation="Clip")
            y = net.convolution(y, (hidden, hidden), 3, stride, group=hidden, activation="Clip")
            y = net.convolution(y, (hidden, width), 1, activation="")
            x = net.operator("Add", [x, y]) if stride == 1 and channels == width else y
            channels = width
    x = net.convolution(x, (channels, 1280), 1, activation="Clip")
    return net.classifier(x, 1280)


SYNTHETIC_NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "ResNet-18-like": resnet18_like,
    "ResNet-50-like": resnet50_like,
    "MobileNetV2-like": mobilenet_v2_like,
}


def write_net(name: str, folder: Path) -> Path:
    """Write a synthetic network to a file named after it."""
    path = folder / f"{name.lower()}.onnx"
    path.write_bytes(SYNTHETIC_NETS[name]().SerializeToString())
    return path
