"""Image files as a source of batches: decoded when their batch is read, prepared as the data says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt

from amct_lite.errors import FileError, OptionalDependencyError, ParameterError
from amct_lite.evaluators.data import Inputs, Labels, accepted_classes
from amct_lite.evaluators.labels import find_labelled_images

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageData", "ImagePreprocessing"]


@dataclass(frozen=True)
class ImagePreprocessing:
    """How an image becomes a network's input, in this order; the result is float32 in layout NCHW.

    Attributes:
        resize: Length of the shorter side (the other follows), or (height, width); None keeps the size.
            Bilinear.
        crop: Side of the centre crop, or (height, width); None keeps all.
        channels: Channel order, "RGB" or "BGR", or "GRAY" for one channel.
        mean: Subtracted from the pixels 0..255; one number, or one per channel in the order of `channels`.
        scale: Multiplied afterwards; one number or one per channel.
        std: Divided by afterwards; one number or one per channel.

    Example:
        >>> ImagePreprocessing(resize=256, crop=224, mean=127, scale=1 / 128).crop
        224
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    channels: Literal["RGB", "BGR", "GRAY"] = "RGB"
    mean: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        if self.channels not in ("RGB", "BGR", "GRAY"):
            raise ParameterError(
                "The 'channels' parameter of ImagePreprocessing must be 'RGB', 'BGR' or 'GRAY'."
                f" Got {self.channels!r} instead."
            )
        num_channels = 1 if self.channels == "GRAY" else 3
        for name in ("mean", "scale", "std"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape not in ((), (num_channels,)) or not np.isfinite(value).all():
                raise ParameterError(
                    f"The {name!r} parameter of ImagePreprocessing must be one number or {num_channels}."
                    f" Got {getattr(self, name)!r} instead."
                )
        if np.any(np.asarray(self.std) == 0):
            raise ParameterError("The 'std' parameter of ImagePreprocessing must not be 0.")
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and np.min(size) < 1:
                raise ParameterError(
                    f"The {name!r} parameter of ImagePreprocessing must be positive. Got {size!r} instead."
                )

    def apply(self, image: "Image") -> npt.NDArray[np.float32]:
        """Prepare one decoded image.

        Args:
            image: A Pillow image of any mode.

        Returns:
            float32 array, shape (channels, height, width).

        Raises:
            ParameterError: The crop is larger than the image.
        """
        image = image.convert("L" if self.channels == "GRAY" else "RGB")
        if self.resize is not None:
            height, width = target_size(self.resize, image.height, image.width)
            image = image.resize((width, height), resample=2)  # 2 is Pillow's number for bilinear
        pixels = np.asarray(image, np.float32)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if self.crop is not None:
            pixels = centre_crop(pixels, self.crop)
        if self.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        mean, scale, std = (np.asarray(value, np.float32) for value in (self.mean, self.scale, self.std))
        prepared = (pixels - mean) * scale / std
        return np.ascontiguousarray(prepared.transpose(2, 0, 1), np.float32)


class ImageData:
    """Image files, decoded batch by batch and never kept.

    Needs Pillow, which comes with `pip install amct-lite[images]`.

    Args:
        files: The images, in the order in which they are read.
        preprocessing: How each becomes an input.
        labels: A class index per file (or a sequence of the classes that are right), or None.

    Raises:
        OptionalDependencyError: Pillow is not installed.
        ParameterError: There are no files, or labels do not fit them.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        *,
        preprocessing: ImagePreprocessing,
        labels: Labels | None = None,
    ) -> None:
        require_pillow()
        if not files:
            raise ParameterError("The 'files' parameter of ImageData must name at least one image.")
        self.files = tuple(Path(file) for file in files)
        self.preprocessing = preprocessing
        self.accepted = None if labels is None else accepted_classes(labels, len(self.files))

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        preprocessing: ImagePreprocessing,
        labels_file: str | Path | None = None,
    ) -> Self:
        """Take the images of a folder, with labels where it has them.

        Args:
            folder: Holds images and `labels.csv`, or one sub-folder of images per class, or only images.
            preprocessing: How each image becomes an input.
            labels_file: The labels' file; None takes `labels.csv` in the folder where there is one. See
                `amct_lite.evaluators.labels` for what it holds.

        Returns:
            The data: in the order of the labels' file, else sorted by name.

        Raises:
            FileError: The folder, the labels' file or an image is missing or not as it should be.
            OptionalDependencyError: Pillow is not installed.
        """
        files, labels = find_labelled_images(Path(folder), None if labels_file is None else Path(labels_file))
        return cls(files, preprocessing=preprocessing, labels=labels)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> Inputs:
        """Decode images start to stop - 1.

        Args:
            start: The first image.
            stop: One after the last.

        Returns:
            float32 array, shape (images, channels, height, width).

        Raises:
            FileError: A file is missing or no image.
            ParameterError: Prepared images differ in size.
        """
        prepared = [self.decode(file) for file in self.files[start:stop]]
        for file, pixels in zip(self.files[start:stop], prepared, strict=True):
            if pixels.shape != prepared[0].shape:
                raise ParameterError(
                    f"Images of one batch differ in shape: {self.files[start]} gives {prepared[0].shape},"
                    f" {file} gives {pixels.shape}.",
                    remedy="Set 'resize' or 'crop' in ImagePreprocessing.",
                )
        return np.stack(prepared)

    def decode(self, file: Path) -> npt.NDArray[np.float32]:
        """Decode and prepare one image, shape (channels, height, width)."""
        from PIL import Image

        try:
            with Image.open(file) as image:
                return self.preprocessing.apply(image)
        except ParameterError as error:
            raise ParameterError(f"{file}: {error.cause}", remedy=error.remedy) from error
        except (OSError, ValueError) as error:
            raise FileError(f"{file} cannot be decoded as an image: {error}") from error

    def select(self, samples: slice | Sequence[int]) -> "ImageData":
        """Return a part of the data, for example a calibration part with `select(slice(0, 64))`."""
        chosen = np.arange(len(self.files))[samples]
        selected = ImageData([self.files[index] for index in chosen], preprocessing=self.preprocessing)
        selected.accepted = None if self.accepted is None else self.accepted[chosen]
        return selected


def target_size(resize: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return (height, width) after resizing.

    Example:
        >>> target_size(256, 512, 1024)
        (256, 512)
    """
    if isinstance(resize, tuple):
        return resize
    ratio = resize / min(height, width)
    return max(resize, round(height * ratio)), max(resize, round(width * ratio))


def centre_crop(pixels: npt.NDArray[np.float32], crop: int | tuple[int, int]) -> npt.NDArray[np.float32]:
    """Cut the centre out of an image, shape (height, width, channels)."""
    height, width = crop if isinstance(crop, tuple) else (crop, crop)
    if height > pixels.shape[0] or width > pixels.shape[1]:
        raise ParameterError(
            f"The centre crop of {height} x {width} is larger than the image of {pixels.shape[0]} x {pixels.shape[1]}.",
            remedy="Set 'resize' in ImagePreprocessing.",
        )
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def require_pillow() -> None:
    """Raise an error that says what to install where Pillow is missing."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise OptionalDependencyError(
            "Reading images needs Pillow, which is not installed.",
            remedy="Run: pip install amct-lite[images]",
        ) from error
