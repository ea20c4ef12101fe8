"""Arrays as an .npz file whose bytes depend on the arrays alone."""

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["json_array", "json_of", "npz_arrays", "npz_bytes"]


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """An .npz as bytes; numpy's own writer stamps the current time into it.

    Args:
        arrays: Name -> array of any type but objects.

    Example:
        >>> np.load(BytesIO(npz_bytes({"a": np.arange(3)})))["a"]
        array([0, 1, 2])
    """
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = BytesIO()
            np.lib.format.write_array(data, np.asanyarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), data.getvalue())
    return buffer.getvalue()


def npz_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz file, in memory; numpy, zipfile and zlib raise many kinds of errors on damaged ones."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def json_array(document: Any) -> npt.NDArray[np.uint8]:
    """A JSON document as an array, to go with others into an .npz; the same document gives the same bytes.

    Example:
        >>> json_of(json_array({"b": 1, "a": [2]}))
        {'a': [2], 'b': 1}
    """
    return np.frombuffer(json.dumps(document, sort_keys=True).encode(), np.uint8)


def json_of(array: npt.NDArray[Any]) -> Any:
    """The document of `json_array`."""
    return json.loads(array.tobytes())
