"""A layer's weights as pycaffe shows them, and whether a script has changed them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.caffe.network import CaffeLayer
from amct_lite.pycaffe.blob import Blob

__all__ = ["NetLayer", "ParameterBlob", "parameter_blobs"]


class ParameterBlob(Blob):
    """One weight array of a layer; copied when a script first looks at it, and compared only from then on."""

    def __init__(self, stored: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self._stored = stored

    @property
    def data(self) -> npt.NDArray[np.float32]:
        """The numbers; what is written here holds from the next forward pass on."""
        if self._data is None:
            self._data = np.array(self._stored, np.float32).reshape(self._shape)
        return self._data

    @property
    def changed(self) -> bool:
        """Whether the numbers are others than those last taken."""
        return self._data is not None and not np.array_equal(
            self._data.reshape(-1), self._stored.reshape(-1), equal_nan=True
        )

    def take(self) -> npt.NDArray[np.float32]:
        """The numbers in the shape in which the caffemodel has them; from now on they count as unchanged."""
        if self.changed and self._data is not None:
            self._stored = self._data.reshape(self._stored.shape).copy()
        return self._stored

    def reshape(self, *shape: int) -> None:
        """Refuse another size: weights keep the shape that their layer asks for."""
        if tuple(shape) != self._shape:
            raise ValueError(f"A weight blob keeps its shape {self._shape}. Got {shape}.")


class NetLayer:
    """A layer as `net.layer_dict` shows it.

    Attributes:
        type: Its Caffe type.
        blobs: Its weights.
    """

    def __init__(self, layer_type: str, blobs: Sequence[ParameterBlob]) -> None:
        self.type = layer_type
        self.blobs = list(blobs)


def parameter_blobs(layer: CaffeLayer) -> list[ParameterBlob]:
    """The weights of a layer, in today's shapes: old caffemodels give every blob four axes."""
    return [
        ParameterBlob(array, _shape_today(layer.type, index, array.shape)) for index, array in enumerate(layer.blobs)
    ]


def _shape_today(layer_type: str, index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4 or (index == 0 and layer_type in ("Convolution", "Deconvolution")):
        return shape
    kept = 2 if index == 0 and layer_type in ("InnerProduct", "Embed") else 1
    return shape[4 - kept :] if all(size == 1 for size in shape[: 4 - kept]) else shape
