"""The digits of scikit-learn, cut once and for all into parts that share no image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

__all__ = ["INPUT_NAME", "MODEL_FILE", "DigitsPart", "DigitsSplit", "load_split"]

MODEL_FILE = Path(__file__).with_name("digits.onnx")
"""The trained network."""

INPUT_NAME = "image"
"""Name of the network's input."""

PART_SIZES = {"train": 997, "calibration": 100, "validation": 300, "held_out": 400}
"""Number of images in each part; together they are the 1797 of the data set."""

SPLIT_SEED = 20240229
HIGHEST_PIXEL = 16.0


@dataclass(frozen=True)
class DigitsPart:
    """Images with their labels.

    Attributes:
        images: float32 array, shape (n, 1, 8, 8), values in [0, 1].
        labels: int64 array, shape (n,), values 0 to 9.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class DigitsSplit:
    """The whole data set in four disjoint parts.

    Attributes:
        train: What the network was trained on.
        calibration: What activation ranges may be taken from.
        validation: What a search may look at as often as it likes.
        held_out: What figures are reported on, and nothing else.
    """

    train: DigitsPart
    calibration: DigitsPart
    validation: DigitsPart
    held_out: DigitsPart


def load_split() -> DigitsSplit:
    """Load the digits in their fixed split; scikit-learn brings the data, nothing is downloaded.

    Returns:
        The same four parts on every call and on every machine.

    Example:
        >>> split = load_split()
        >>> split.held_out.images.shape
        (400, 1, 8, 8)
    """
    digits = load_digits()
    # RandomState and not default_rng: its permutations are guaranteed to stay the same across numpy's
    # versions.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(digits.target))
    images = (digits.images[order, None] / HIGHEST_PIXEL).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    ends = np.cumsum(list(PART_SIZES.values()))
    starts = ends - list(PART_SIZES.values())
    parts = {
        name: DigitsPart(images[start:end], labels[start:end])
        for name, start, end in zip(PART_SIZES, starts, ends, strict=True)
    }
    return DigitsSplit(**parts)
