"""Converts an image of any Pillow mode to 8-bit RGB."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.image.tiff import BITS, SAMPLE_FORMAT, SIGNED


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to 8-bit RGB.

    - Transparency is laid over white.
    - 16-bit grey is scaled by the range of its type, in every image alike: 65,535 becomes 255; so does 32,767
      in signed files (negative values become 0), and 4,095 in 12-bit TIFF files.
    - 32-bit integers (mode I) from 0 to 65,535 count as 16-bit.
    - Fractions (mode F) are scaled by the smallest of 1, 255 and 65,535 that no value exceeds.
    - Other values of modes I and F are stretched from the minimum of the image to its maximum.
    - All other modes (1, L, P, CMYK, YCbCr, HSV, LAB) use Pillow's conversion.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(image)
    if is_transparent(image):
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    if image.mode == "RGB":
        return image
    return image.convert("RGB")


def is_transparent(image: Image.Image) -> bool:
    """Whether an image has transparency: an alpha channel, or a colour that counts as transparent."""
    if image.mode != "RGB":
        return image.has_transparency_data
    colour = image.info.get("transparency")
    # A 16-bit PNG states its transparent colour in 16 bits, but is read with 8. No pixel can match.
    return isinstance(colour, tuple | list) and all(0 <= value <= 255 for value in colour)


def _from_numbers(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "f":
        grey = _floats_to_bytes(values)
    elif (full := full_range(image)) is not None:
        grey = scaled(np.clip(values, 0, full), full)
    elif values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
        grey = _stretch(values.astype(np.float64))
    else:
        grey = scaled(values, 65535)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def scaled(values: npt.NDArray[Any], full: int) -> npt.NDArray[np.uint8]:
    """Scale 0..``full`` to 0..255, rounded to the nearest integer."""
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def full_range(image: Image.Image) -> int | None:
    """The largest value of a 12-bit or signed 16-bit TIFF file; None for all other images."""
    tags: Any = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return None
    bits, signed = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (1,))
    if bits in ((12,), 12):
        return 4095
    return 32767 if bits in ((16,), 16) and signed in ((SIGNED,), SIGNED) else None


def _floats_to_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    finite = np.isfinite(values)
    if not finite.all():
        lowest = values[finite].min() if finite.any() else 0.0
        values = np.where(finite, values, lowest)
    if values.min() >= 0:
        for largest in (1.0, 255.0, 65535.0):
            if values.max() <= largest:
                return np.rint(values * (255.0 / largest)).astype(np.uint8)
    return _stretch(values.astype(np.float64))


def _stretch(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    low, high = values.min(), values.max()
    factor = 255.0 / (high - low) if high > low else 0.0
    stretched: npt.NDArray[np.uint8] = np.rint((values - low) * factor).astype(np.uint8)
    return stretched
