"""Any mode that Pillow knows -> 8-bit RGB, one way everywhere."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Bring a picture of any mode that Pillow knows to 8-bit RGB, one way everywhere.

    Transparency is laid over white. 16-bit grey is scaled to 8 bits, not clipped. 32-bit whole numbers
    (mode I) within 0..65535 count as 16-bit; fractions (mode F) are scaled by the smallest of 1, 255 and
    65535 that holds them all; values outside of that are stretched from the smallest to the largest. All
    else (1, L, P, CMYK, YCbCr, HSV, LAB) is Pillow's own conversion.
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
    """Whether a picture carries transparency, in a channel of its own or as a colour that counts as none."""
    if image.mode != "RGB":
        return image.has_transparency_data
    colour = image.info.get("transparency")
    # A 16-bit PNG names its transparent colour in 16 bits, but is read with 8: nothing can match.
    return isinstance(colour, tuple | list) and all(0 <= value <= 255 for value in colour)


def _from_numbers(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    grey = _floats_to_bytes(values) if values.dtype.kind == "f" else _integers_to_bytes(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _integers_to_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
        return _stretch(values.astype(np.float64))
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


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
