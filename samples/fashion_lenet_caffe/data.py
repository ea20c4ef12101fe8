"""Fashion-MNIST from Debian's package `dataset-fashion-mnist`, or from a folder of yours with the same four files."""

import gzip
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from amct_lite.errors import FileError

__all__ = ["DATA_FOLDER", "load_part"]

DATA_FOLDER = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


def load_part(part: str, folder: Path = DATA_FOLDER) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Read a part of the data set (idx files, LeCun's format).

    Args:
        part: "train" (60,000 images) or "t10k" (10,000).
        folder: Holds `{part}-images-idx3-ubyte.gz` and `{part}-labels-idx1-ubyte.gz`.

    Returns:
        Images, float32 array of shape (n, 1, 28, 28), pixels / 256; and labels, shape (n,).

    Raises:
        FileError: The files are not there.
    """
    try:
        pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    except OSError as error:
        raise FileError(
            f"Fashion-MNIST is not in {folder}: {error}.",
            remedy="Run: apt-get install dataset-fashion-mnist, or set FASHION_MNIST to the folder that has its files.",
        ) from error
    # idx: a header of 16 bytes (images) or 8 (labels), then one byte a pixel or label.
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return images.astype(np.float32) / np.float32(256), np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
