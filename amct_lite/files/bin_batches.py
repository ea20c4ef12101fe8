"""Batches from folders of raw binary files, as AMCT's command line takes them: a file is a batch of one input."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.errors import CalibrationError, ParameterError

__all__ = ["BinBatches", "parse_data_types", "parse_input_shape"]

DATA_TYPES = (
    *("float64", "float32", "float16", "int64", "int32", "int16", "int8"),
    *("uint64", "uint32", "uint16", "uint8", "bool"),
)


def parse_input_shape(text: str) -> dict[str, tuple[int, ...]]:
    """Shapes by input.

    Args:
        text: "name:n,c,h,w;name2:n,c,h,w".

    Raises:
        ParameterError: It is not of this form.

    Example:
        >>> parse_input_shape("data:1,3,224,224;scale:1")
        {'data': (1, 3, 224, 224), 'scale': (1,)}
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, colon, sizes = part.rpartition(":")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not colon or not name.strip() or not shape or min(shape) < 1:
            raise ParameterError(
                f"Invalid input_shape {text!r}: {part!r} is not a name and its sizes, each at least 1.",
                remedy='Give it as "name:n,c,h,w", several separated by ";".',
            )
        shapes[name.strip()] = shape
    if not shapes:
        raise ParameterError(f"Invalid input_shape {text!r}: it names no input.", remedy='Give it as "name:n,c,h,w".')
    return shapes


def parse_data_types(text: str) -> list[np.dtype[Any]]:
    """Element types.

    Args:
        text: Names of `DATA_TYPES`, separated by ";".

    Raises:
        ParameterError: A name is none of them.
    """
    names = [name.strip() for name in text.split(";") if name.strip()]
    for name in names:
        if name not in DATA_TYPES:
            raise ParameterError(f"Unsupported data type[{name}]!", remedy=f"Give one of {', '.join(DATA_TYPES)}.")
    return [np.dtype(name) for name in names]


@dataclass(frozen=True)
class BinBatches:
    """The first batches of folders of .bin files, read when they are asked for, in the order of the files' names.

    Attributes:
        folders: Input -> its folder.
        shapes: Input -> shape of a batch.
        data_types: Input -> element type; files are in the machine's byte order.
        batch_num: How many batches there shall be.

    Raises:
        CalibrationError: A folder has fewer files than that.
        ParameterError: There is no such folder.
    """

    folders: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]
    data_types: Mapping[str, np.dtype[Any]]
    batch_num: int

    def __post_init__(self) -> None:
        for name in self.folders:
            found = len(self._files(name))
            if found < self.batch_num:
                raise CalibrationError(
                    f"The number of given data batches is not enough: batch_num is {self.batch_num}, but"
                    f" {self.folders[name]} has {found} .bin files for the input {name!r}.",
                    remedy="Put a file for each batch into it, or lower batch_num.",
                )

    @classmethod
    def from_texts(cls, input_shape: str, data_dir: str, data_types: str, batch_num: int) -> "BinBatches":
        """Batches of what AMCT's command line is given: the n-th folder and type are the n-th input's.

        Raises:
            AmctError: A text has another form, their numbers differ, or a folder has too few files.
        """
        shapes = parse_input_shape(input_shape)
        folders = [Path(part.strip()) for part in data_dir.split(";") if part.strip()]
        types = parse_data_types(data_types)
        if not len(shapes) == len(folders) == len(types):
            raise ParameterError(
                f"input_shape names {len(shapes)} inputs, data_dir {len(folders)} folders, data_types"
                f" {len(types)} types.",
                remedy='Give one of each for every input, separated by ";".',
            )
        return cls(dict(zip(shapes, folders, strict=True)), shapes, dict(zip(shapes, types, strict=True)), batch_num)

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for files in list(zip(*map(self._files, self.folders), strict=False))[: self.batch_num]:
            yield {name: self._read(name, file) for name, file in zip(self.folders, files, strict=True)}

    def _files(self, name: str) -> Sequence[Path]:
        folder = self.folders[name]
        if not folder.is_dir():
            raise ParameterError(f"There is no folder {folder} for the input {name!r}.", remedy="Check data_dir.")
        return sorted(folder.glob("*.bin"))

    def _read(self, name: str, file: Path) -> npt.NDArray[Any]:
        shape, data_type = self.shapes[name], self.data_types[name]
        content = file.read_bytes()
        expected = int(np.prod(shape)) * data_type.itemsize
        if len(content) != expected:
            raise CalibrationError(
                f"{file} has {len(content)} bytes, but a batch of {list(shape)} {data_type.name} takes {expected}.",
                remedy="Write whole batches, or correct input_shape and data_types.",
            )
        return np.frombuffer(content, data_type).reshape(shape)
