"""Arrays as an .npz file whose bytes depend on the arrays alone."""

import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["npz_bytes"]


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
