"""A blob as pycaffe shows it: an array that the script reads and writes in place."""

import math

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError

__all__ = ["Blob"]


class Blob:
    """An array of float32 with Caffe's names for its sizes."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._shape = shape
        self._data: npt.NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        return f"Blob{self._shape}"

    @property
    def data(self) -> npt.NDArray[np.float32]:
        """The numbers; write through it with `blob.data[...] = values`."""
        if self._data is None:
            self._data = np.zeros(self._shape, np.float32)
        return self._data

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self._shape

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self._shape)

    @property
    def num(self) -> int:
        """The first of four sizes; 1 where a blob has fewer axes."""
        return self._legacy_size(0)

    @property
    def channels(self) -> int:
        """The second of four sizes."""
        return self._legacy_size(1)

    @property
    def height(self) -> int:
        """The third of four sizes."""
        return self._legacy_size(2)

    @property
    def width(self) -> int:
        """The last of four sizes."""
        return self._legacy_size(3)

    def reshape(self, *shape: int) -> None:
        """Change its sizes; the numbers are 0 afterwards unless the sizes were these already."""
        new = tuple(int(size) for size in shape)
        if any(size < 0 for size in new):
            raise ParameterError(f"The sizes of a blob must not be negative. Got {new} instead.")
        if new != self._shape:
            self._shape, self._data = new, None

    def store(self, values: npt.NDArray[np.float32]) -> None:
        """Take new numbers, in place where the shape stays: arrays that a script kept show them, as in Caffe."""
        if self._data is None or values.shape != self._shape:
            self._shape, self._data = values.shape, np.array(values, np.float32)
        else:
            self._data[...] = values

    def _legacy_size(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise ParameterError(f"A blob with {len(self._shape)} axes has no num, channels, height and width.")
        return self._shape[axis] if axis < len(self._shape) else 1
