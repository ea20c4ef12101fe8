"""Networks of known shapes with random weights: what a speed depends on, without a download.

He-normal weights keep the activations of every layer of order 1, about half of them zeros behind a Relu, as trained
ones have them. The weights come from a fixed seed, so every run makes the same bytes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

__all__ = ["BUILDERS", "INPUT_SHAPE", "images", "write_network"]

INPUT_SHAPE = (3, 224, 224)

# The last layer of a residual branch starts smaller, or the sum of 16 branches grows out of proportion.
BRANCH_GAIN = 0.3


class Builder:
    """Adds operators to a graph, one behind the other."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self.input = ir.Value(
            name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", *INPUT_SHAPE], denotations=None)
        )
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []

    def add(self, op_type: str, *inputs: ir.Value, **attributes: int | list[int] | float) -> ir.Value:
        """One operator with one output."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        output = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT))
        self.nodes.append(ir.node(op_type, inputs=list(inputs), attributes=attributes, outputs=[output], name=name))
        return output

    def constant(self, name: str, values: np.ndarray) -> ir.Value:
        """A weight."""
        tensor = ir.tensor(values.astype(np.float32), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(values.shape), const_value=tensor)
        self.initializers.append(value)
        return value

    def conv(
        self,
        x: ir.Value,
        channels: tuple[int, int],
        kernel: int = 1,
        *,
        stride: int = 1,
        group: int = 1,
        gain: float = 1.0,
    ) -> ir.Value:
        """A convolution with a bias (a BatchNormalization would be folded into it), padded to keep the size."""
        inputs, outputs = channels[0] // group, channels[1]
        deviation = gain * np.sqrt(2 / (inputs * kernel**2))
        weight = self._rng.normal(0, deviation, (outputs, inputs, kernel, kernel))
        prefix = f"conv_{len(self.nodes)}"
        return self.add(
            "Conv",
            x,
            self.constant(f"{prefix}.weight", weight),
            self.constant(f"{prefix}.bias", self._rng.normal(0, 0.05, outputs)),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=group,
        )

    def head(self, x: ir.Value, channels: int) -> ir.Value:
        """Average pooling and the classifier."""
        flat = self.add("Flatten", self.add("GlobalAveragePool", x))
        weight = self.constant("classifier.weight", self._rng.normal(0, channels**-0.5, (1000, channels)))
        return self.add("Gemm", flat, weight, self.constant("classifier.bias", np.zeros(1000)), transB=1)


def resnet_18(builder: Builder) -> ir.Value:
    """He et al., "Deep residual learning for image recognition", table 1, the column of 18 layers."""
    x, width = _resnet_stem(builder), 64
    for stage, size in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = builder.add("Relu", builder.conv(x, (width, size), 3, stride=stride))
            y = builder.conv(y, (size, size), 3, gain=BRANCH_GAIN)
            x = x if width == size else builder.conv(x, (width, size), stride=stride)
            x, width = builder.add("Relu", builder.add("Add", x, y)), size
    return builder.head(x, width)


def resnet_50(builder: Builder) -> ir.Value:
    """The same table, the column of 50 layers, with the stride in the 3x3 convolution as everyone trains it."""
    x, width = _resnet_stem(builder), 64
    for stage, (size, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = builder.add("Relu", builder.conv(x, (width, size)))
            y = builder.add("Relu", builder.conv(y, (size, size), 3, stride=stride))
            y = builder.conv(y, (size, 4 * size), gain=BRANCH_GAIN)
            x = builder.conv(x, (width, 4 * size), stride=stride) if block == 0 else x
            x, width = builder.add("Relu", builder.add("Add", x, y)), 4 * size
    return builder.head(x, width)


def mobilenet_v2(builder: Builder) -> ir.Value:
    """Sandler et al., "MobileNetV2", table 2."""
    six, zero = builder.constant("six", np.array(6.0)), builder.constant("zero", np.array(0.0))

    def relu6(x: ir.Value) -> ir.Value:
        return builder.add("Clip", x, zero, six)

    x, width = relu6(builder.conv(builder.input, (3, 32), 3, stride=2)), 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, size, blocks, first_stride in table:
        for block in range(blocks):
            stride, hidden = first_stride if block == 0 else 1, expansion * width
            y = x if expansion == 1 else relu6(builder.conv(x, (width, hidden)))
            y = relu6(builder.conv(y, (hidden, hidden), 3, stride=stride, group=hidden))
            y = builder.conv(y, (hidden, size), gain=0.7)
            x = builder.add("Add", x, y) if block else y
            width = size
    return builder.head(relu6(builder.conv(x, (width, 1280))), 1280)


def _resnet_stem(builder: Builder) -> ir.Value:
    x = builder.add("Relu", builder.conv(builder.input, (3, 64), 7, stride=2))
    return builder.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


BUILDERS: dict[str, Callable[[Builder], ir.Value]] = {
    "ResNet-18-like": resnet_18,
    "ResNet-50-like": resnet_50,
    "MobileNetV2-like": mobilenet_v2,
}


def write_network(name: str, path: Path) -> None:
    """Write one of BUILDERS as an ONNX file with the input "x" and free batch size."""
    builder = Builder()
    scores = BUILDERS[name](builder)
    scores.shape = ir.Shape(["N", 1000])
    graph = ir.Graph(
        [builder.input],
        [scores],
        nodes=builder.nodes,
        initializers=builder.initializers,
        opset_imports={"": 17},
        name=path.stem,
    )
    ir.save(ir.Model(graph, ir_version=9), path)


def images(count: int, batch_size: int = 1) -> list[np.ndarray]:
    """Batches of smooth random images of mean 0 and deviation about 1: their neighbouring pixels are alike."""
    rng = np.random.default_rng(1)
    shape = (batch_size, *INPUT_SHAPE[:1], 28, 28)
    return [
        np.repeat(np.repeat(rng.normal(size=shape), 8, axis=2), 8, axis=3).astype(np.float32)
        + rng.normal(0, 0.2, (batch_size, *INPUT_SHAPE)).astype(np.float32)
        for _ in range(count)
    ]
