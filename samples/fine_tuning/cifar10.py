"""CIFAR-10 as its authors' "binary version": files of records of one label byte and 3072 pixel bytes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from amct_lite.errors import FileError

__all__ = ["load_cifar10"]

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
RECORD_BYTES = 1 + 3 * 32 * 32


def load_cifar10(part: str, folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Read a part.

    Args:
        part: "train" (50,000 images) or "test" (10,000).
        folder: Holds the .bin files.

    Returns:
        Images, float32 array of shape (n, 3, 32, 32), red, green and blue from 0 to 255; and labels, shape (n,).

    Raises:
        FileError: The files are not there, or are something else.
    """
    try:
        files = TRAIN_FILES if part == "train" else TEST_FILES
        data = np.concatenate([np.frombuffer((folder / name).read_bytes(), np.uint8) for name in files])
    except OSError as error:
        raise FileError(
            f"CIFAR-10 is not in {folder}: {error}.",
            remedy="Unpack cifar-10-binary.tar.gz of its authors, and give the folder with the .bin files.",
        ) from error
    if data.size % RECORD_BYTES:
        raise FileError(f"The files in {folder} are not the binary version of CIFAR-10: {data.size} bytes.")
    records = data.reshape(-1, RECORD_BYTES)
    return records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32), records[:, 0].astype(np.int64)
