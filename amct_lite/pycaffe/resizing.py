"""Resizing an image by sampling it on a coarser or finer grid, as the scikit-image of pycaffe's time did."""

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError

__all__ = ["resize_image"]

Image = npt.NDArray[np.float32]


def resize_image(im: npt.ArrayLike, new_dims: tuple[int, int], interp_order: int = 1) -> Image:
    """Resize an image.

    Pixels are areas, so sample i of the new grid lies at (i + 0.5) * old / new - 0.5 of the old one; there the two
    neighbours along each axis are mixed linearly (interp_order 1), or the nearest one is taken (0). Images are not
    smoothed before they shrink. Where a sample of one or three channels lies beyond the outermost pixels it is mixed
    with the image's smallest value, and with other numbers of channels the corner pixels of both grids coincide: so
    pycaffe does.

    Args:
        im: Array of shape (height, width, channels).
        new_dims: The new height and width.
        interp_order: 1 or 0.

    Returns:
        float32 array of shape (new height, new width, channels).

    Raises:
        ParameterError: The image has no three axes, or the order is another.

    Example:
        >>> resize_image(np.array([[[0.0], [2.0], [4.0], [6.0]]]), (1, 2)).ravel().tolist()
        [1.0, 5.0]
    """
    image = np.asarray(im, np.float32)
    if image.ndim != 3 or 0 in image.shape:
        raise ParameterError(f"The 'im' parameter must be an array (height, width, channels). Got {image.shape}.")
    if interp_order not in (0, 1):
        raise ParameterError(f"The 'interp_order' parameter must be 0 or 1. Got {interp_order!r} instead.")
    height, width = (int(size) for size in new_dims)
    if image.shape[:2] == (height, width):
        return image.copy()
    areas = image.shape[2] in (1, 3)
    floor = image.min() if areas else np.float32(0)
    rows = _sampling(image.shape[0], height, interp_order, areas)
    columns = _sampling(image.shape[1], width, interp_order, areas)
    # What lies beyond the image is the floor: with the floor as 0, leaving out its share is enough.
    mixed = np.einsum("ab,bwc->awc", rows, image - floor, optimize=True)
    return np.asarray(np.einsum("de,aec->adc", columns, mixed, optimize=True) + floor, np.float32)


def _sampling(old: int, new: int, order: int, areas: bool) -> Image:
    """The matrix, shape (new, old), that samples one axis; a row sums to less than 1 beyond the ends."""
    step = old / new if areas else (old - 1) / max(new - 1, 1)
    at = (np.arange(new) + 0.5) * step - 0.5 if areas else np.arange(new) * step
    matrix = np.zeros((new, old), np.float32)
    lower = np.floor(at if order else at + 0.5).astype(np.int64)
    share = (at - lower) if order else np.zeros(new)
    for neighbour, weight in ((lower, 1 - share), (lower + 1, share)):
        inside = (neighbour >= 0) & (neighbour < old)
        matrix[np.arange(new)[inside], neighbour[inside]] += weight[inside]
    return matrix
