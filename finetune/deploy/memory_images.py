"""Convert images in memory (Pillow images, NumPy arrays) to what preprocessing takes. Torch-free."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finetune.errors import BadImageError, first_line
from finetune.image.bands import COLOURS
from finetune.image.decode import MAX_ELONGATION, suppress_warnings, upright_rgb
from finetune.image.pixels import ImageOrBands


def from_memory(image: Image.Image | NDArray[Any], name: str, bands: int | None = None) -> ImageOrBands:
    """Convert an image in memory, as :func:`~finetune.image.bands.open_image` converts a file.

    - A Pillow image of any mode becomes RGB. Its EXIF orientation is applied.
    - A uint8 array (H, W) or (H, W, 1) is grey, (H, W, 3) is RGB, and (H, W, 4) is RGB with transparency,
      which is laid over white.
    - A network with more than three bands takes uint8 arrays (H, W, bands) only.

    Args:
        name: names the image in errors.
        bands: the number of bands that the network reads; None means colours.

    Raises:
        BadImageError: the image is damaged, or has another type, shape or number of bands.
    """
    own_bands = bands is not None and bands > COLOURS
    if isinstance(image, np.ndarray):
        _check_array(image, name, {bands} if own_bands else {1, 3} if bands == COLOURS else {1, 3, 4})
        if own_bands:
            return np.ascontiguousarray(image)
        pixels = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        image = Image.fromarray(np.ascontiguousarray(pixels))
    elif own_bands:
        raise BadImageError(name, f"a Pillow image; pass a uint8 array (height, width, {bands})")
    _check_size(image.width, image.height, name)
    try:
        with suppress_warnings():
            return upright_rgb(image)
    except Exception as error:
        # A Pillow image may still be undecoded. Decoders raise errors of many kinds on damaged data.
        raise BadImageError(name, f"damaged: {first_line(error)}") from None


def _check_array(pixels: NDArray[Any], name: str, depths: set[int | None]) -> None:
    if pixels.dtype != np.uint8:
        raise BadImageError(name, f"an array of type {pixels.dtype}; pass uint8")
    grey = pixels.ndim == 2 and 1 in depths
    if not grey and (pixels.ndim != 3 or pixels.shape[2] not in depths):
        known = " or ".join(str(depth) for depth in sorted(depth for depth in depths if depth is not None))
        raise BadImageError(name, f"an array of shape {pixels.shape}; pass (height, width, {known})")
    _check_size(pixels.shape[1], pixels.shape[0], name)


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise BadImageError(name, f"{width} x {height} pixels")
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise BadImageError(name, f"{width} x {height} pixels: too elongated to be an image")
