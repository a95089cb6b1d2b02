"""Thumbnails: small images as ``data:`` addresses, each of a bounded size."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from finetune.image.pixels import ImageOrBands

SIDE = 112
# Bytes of a file. With base64, 500 thumbnails come to 5 MB at most.
MOST_BYTES = 7_500
QUALITIES = (82, 65, 45, 25)
# Images of at most this side are drawn, not photographed: they keep their pixels.
TINY = 40


def thumbnail(pixels: ImageOrBands, side: int = SIDE) -> str:
    """An image as a ``data:`` address: WebP, or PNG for images of a few pixels.

    The same pixels give the same address, with the same version of Pillow.

    Args:
        pixels: an RGB image, or uint8 (height, width, bands). Of more than three bands, the first three show;
            of fewer, the first one, as grey.
        side: the longer side of the result in pixels, at most. Smaller images keep their size.
    """
    image = first_colours(pixels)
    if max(image.size) <= TINY:
        content = _encoded(image, "PNG", optimize=True)
        if len(content) <= MOST_BYTES:
            return _address(content, "png")
    while True:
        shown = image.copy()
        shown.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        for quality in QUALITIES:
            content = _encoded(shown, "WEBP", quality=quality, method=4)
            if len(content) <= MOST_BYTES:
                return _address(content, "webp")
        # Noise: fewer pixels.
        side = side * 3 // 4


def first_colours(pixels: ImageOrBands) -> Image.Image:
    """What can be shown of an image: RGB; of more than three bands the first three, of fewer the first."""
    if isinstance(pixels, Image.Image):
        return pixels if pixels.mode == "RGB" else pixels.convert("RGB")
    bands = np.asarray(pixels, dtype=np.uint8)
    three = bands[:, :, :3] if bands.shape[2] >= 3 else np.repeat(bands[:, :, :1], 3, axis=2)
    return Image.fromarray(np.ascontiguousarray(three))


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
