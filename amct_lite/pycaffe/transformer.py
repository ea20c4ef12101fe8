"""From an image to a network's input and back, as `caffe.io.Transformer` does."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError
from amct_lite.pycaffe.resizing import resize_image

__all__ = ["Transformer"]

Array = npt.NDArray[np.float32]


class Transformer:
    """Prepares images for the inputs of a network.

    `preprocess` resizes, transposes, swaps channels, multiplies by the raw scale, subtracts the mean and multiplies by
    the input scale, each only where it was set.

    Example:
        >>> transformer = Transformer({"data": (1, 3, 2, 2)})
        >>> transformer.set_transpose("data", (2, 0, 1))
        >>> transformer.set_raw_scale("data", 255.0)
        >>> transformer.preprocess("data", np.ones((4, 4, 3))).shape
        (3, 2, 2)
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        """Prepare for inputs.

        Args:
            inputs: Input blob -> its shape, (items, channels, height, width).
        """
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: npt.ArrayLike) -> Array:
        """Turn an image into an item of an input.

        Args:
            in_: The input blob.
            data: The image, (height, width, channels) as `load_image` gives it.

        Returns:
            float32 array.
        """
        self._check_input(in_)
        # A copy, since what follows works in place.
        values = np.array(data, np.float32)
        size = self.inputs[in_][2:]
        if size and values.shape[:2] != size:
            values = resize_image(values, (size[0], size[1]))
        if in_ in self.transpose:
            values = values.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            values = values[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            values = values * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            values = values - self.mean[in_]
        if in_ in self.input_scale:
            values = values * np.float32(self.input_scale[in_])
        return values

    def deprocess(self, in_: str, data: npt.ArrayLike) -> Array:
        """Turn an item of an input back into an image: the steps of `preprocess` undone, save the resizing.

        Args:
            in_: The input blob.
            data: The item.

        Returns:
            float32 array.
        """
        self._check_input(in_)
        values = np.array(data, np.float32).squeeze()
        if in_ in self.input_scale:
            values = values / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            values = values + self.mean[in_]
        if in_ in self.raw_scale:
            values = values / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            values = values[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            values = values.transpose(np.argsort(self.transpose[in_]))
        return values

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the axes: (2, 0, 1) turns (height, width, channels) into (channels, height, width)."""
        self._check_input(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise ParameterError(f"The order must have one number for each axis of an item. Got {tuple(order)}.")
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the channels: (2, 1, 0) turns RGB into BGR."""
        self._check_input(in_)
        if len(order) != self.inputs[in_][1]:
            raise ParameterError(f"The order must have one number for each channel. Got {tuple(order)}.")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor before the mean: 255.0 for images in [0, 1] and a network of the 0 to 255 kind."""
        self._check_input(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: npt.ArrayLike) -> None:
        """Set what is subtracted: a number for each channel, or an image of the input's size."""
        self._check_input(in_)
        values, shape = np.asarray(mean, np.float32), self.inputs[in_]
        if values.ndim == 1:
            if values.shape[0] != shape[1]:
                raise ParameterError(f"The mean has {values.shape[0]} channels, the input {in_!r} has {shape[1]}.")
            values = values[:, np.newaxis, np.newaxis]
        else:
            values = values[np.newaxis] if values.ndim == 2 else values
            if values.shape != shape[1:] and values.shape != (1, *shape[2:]):
                raise ParameterError(
                    f"The mean has the shape {values.shape}, an item of the input {in_!r} has {shape[1:]}.",
                    remedy="Average it over its pixels, mean.mean(1).mean(1), or crop it.",
                )
        self.mean[in_] = values

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor after the mean."""
        self._check_input(in_)
        self.input_scale[in_] = scale

    def _check_input(self, name: str) -> None:
        if name not in self.inputs:
            raise ParameterError(f"{name!r} is no input; they are {sorted(self.inputs)}.")
