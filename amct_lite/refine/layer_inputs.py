"""The input vectors of a layer: what each output value is the product of its weights with.

For a convolution these are patches (im2col); a random part of the output positions stands for all of them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.errors import ModelError
from amct_lite.types import FloatArray, Layer, LayerKind

__all__ = ["LayerInputs"]

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LayerInputs:
    """Takes the input vectors of one layer out of its activation.

    Attributes:
        layer: The layer.
        strides: One number per spatial axis; () for an inner product.
        pads: Padding in front of each spatial axis, then behind each; () for an inner product.
        auto_pad: ONNX's auto_pad.
        output_padding: Of a transposed convolution, one number per spatial axis.
        output_shape: Its spatial output sizes where the node states them, else ().
    """

    layer: Layer
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()

    @classmethod
    def of_node(cls, layer: Layer, node: ir.Node) -> "LayerInputs":
        """Read a layer's geometry from its node."""
        rank = len(layer.kernel_shape)

        def integers(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(node.attributes.get_ints(name, default))

        return cls(
            layer=layer,
            strides=integers("strides", (1,) * rank),
            pads=integers("pads", (0,) * (2 * rank)),
            auto_pad=node.attributes.get_string("auto_pad", "NOTSET"),
            output_padding=integers("output_padding", (0,) * rank),
            output_shape=integers("output_shape", ()),
        )

    def positions(self, shape: tuple[int, ...], max_positions: int, random: np.random.Generator) -> IntArray:
        """Choose output positions for an activation of a shape.

        Args:
            shape: Of the activation.
            max_positions: How many positions of each sample, at most.
            random: Where chance comes from.

        Returns:
            Flat indices, shape (samples, positions); for an inner product (1, vectors), rows of the activation.
        """
        if self.layer.kind is LayerKind.INNER_PRODUCT:
            samples, total = 1, int(np.prod(shape)) // self._channels(shape)
            max_positions *= max(1, shape[0])
        else:
            samples, total = shape[0], int(np.prod(self._output_sizes(shape[2:])))
        if total <= max_positions:
            return np.broadcast_to(np.arange(total), (samples, total))
        return np.stack([np.sort(random.choice(total, max_positions, replace=False)) for _ in range(samples)])

    def vectors(self, activation: FloatArray, positions: IntArray) -> Float32Array:
        """The input vectors of chosen positions.

        Args:
            activation: The layer's input.
            positions: From `positions`.

        Returns:
            float32 array, shape (groups, vectors, K), columns in the order of the weight's rows.
        """
        values = activation.astype(np.float32, copy=False)
        if self.layer.kind is LayerKind.INNER_PRODUCT:
            axis = self.layer.channel_axis % values.ndim
            rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
            return np.ascontiguousarray(rows[positions[0]])[None]
        sizes = values.shape[2:]
        index, inside = self._taps(sizes, positions)
        samples, channels = values.shape[:2]
        if self.layer.group > 1:
            return self._vectors_by_group(values, index, inside)
        pixels = values.reshape(samples, channels, -1).transpose(0, 2, 1)
        taken = pixels[np.arange(samples)[:, None, None], index]
        taken *= inside[..., None]
        split = taken.reshape(1, samples * positions.shape[1], index.shape[2], channels).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(split).reshape(1, len(split[0]), -1)

    def _vectors_by_group(self, values: Float32Array, index: IntArray, inside: npt.NDArray[np.bool_]) -> Float32Array:
        """The same channel by channel: with many groups the taps of a pixel end up far apart from each other."""
        group, (samples, channels) = self.layer.group, values.shape[:2]
        num_positions, taps = index.shape[1:]
        found = np.empty((group, samples, num_positions, channels // group, taps), np.float32)
        for sample, pixels in enumerate(values.reshape(samples, channels, -1)):
            taken = pixels.take(index[sample].reshape(-1), axis=1)
            by_group = taken.reshape(group, channels // group, num_positions, taps).transpose(0, 2, 1, 3)
            np.multiply(by_group, inside[sample][None, :, None, :], out=found[:, sample])
        return found.reshape(group, samples * num_positions, -1)

    def _channels(self, shape: tuple[int, ...]) -> int:
        return shape[self.layer.channel_axis % len(shape)]

    def _taps(self, sizes: tuple[int, ...], positions: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Flat input index of every kernel tap at every position, and whether it lies inside the input."""
        layer = self.layer
        outputs = self._output_sizes(sizes)
        starts = self._starts(sizes, outputs)
        where = np.unravel_index(positions, outputs)
        taps = np.indices(layer.kernel_shape).reshape(len(sizes), -1)
        index = np.zeros((*positions.shape, taps.shape[1]), np.int64)
        inside = np.ones(index.shape, np.bool_)
        for axis, size in enumerate(sizes):
            offsets = taps[axis] * layer.dilations[axis]
            if layer.kind is LayerKind.DECONVOLUTION:
                spread = where[axis][..., None] + starts[axis] - offsets
                coordinate, rest = np.divmod(spread, self.strides[axis])
                inside &= rest == 0
            else:
                coordinate = where[axis][..., None] * self.strides[axis] - starts[axis] + offsets
            inside &= (coordinate >= 0) & (coordinate < size)
            index = index * size + np.clip(coordinate, 0, size - 1)
        return index, inside

    def _output_sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if self.layer.kind is LayerKind.DECONVOLUTION and self.output_shape:
            return self.output_shape[-len(sizes) :]
        found = []
        for axis, size in enumerate(sizes):
            stride, extent = self.strides[axis], self._extent(axis)
            pad = self.pads[axis] + self.pads[axis + len(sizes)]
            if self.layer.kind is LayerKind.DECONVOLUTION:
                same = self.auto_pad.startswith("SAME")
                full = stride * (size - 1) + self.output_padding[axis] + extent
                # ONNX Runtime never pads by less than nothing, so a kernel smaller than its stride ends early.
                found.append(min(size * stride, full) if same else full - (pad if self.auto_pad == "NOTSET" else 0))
            elif self.auto_pad.startswith("SAME"):
                found.append(-(-size // stride))
            else:
                found.append((size + (pad if self.auto_pad == "NOTSET" else 0) - extent) // stride + 1)
        if min(found) < 1:
            raise ModelError(f"An input of spatial sizes {sizes} leaves no output.", layer=self.layer.name)
        return tuple(found)

    def _starts(self, sizes: tuple[int, ...], outputs: tuple[int, ...]) -> tuple[int, ...]:
        """Padding in front of each axis."""
        if self.auto_pad == "NOTSET" and not self.output_shape:
            return self.pads[: len(sizes)]
        if self.auto_pad == "VALID":
            return (0,) * len(sizes)
        starts = []
        for axis, (size, output) in enumerate(zip(sizes, outputs, strict=True)):
            if self.layer.kind is LayerKind.DECONVOLUTION:
                full = self.strides[axis] * (size - 1) + self.output_padding[axis] + self._extent(axis)
                total = max(0, full - output)
                # ONNX gives the odd one to the end, unless SAME_UPPER is asked for.
                lower = self.auto_pad != "SAME_UPPER"
            else:
                total = max(0, (output - 1) * self.strides[axis] + self._extent(axis) - size)
                lower = self.auto_pad == "SAME_LOWER"
            starts.append(-(-total // 2) if lower else total // 2)
        return tuple(starts)

    def _extent(self, axis: int) -> int:
        return (self.layer.kernel_shape[axis] - 1) * self.layer.dilations[axis] + 1
