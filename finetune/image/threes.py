"""Images of many bands, through what is made for three colours: three bands at a time.

Nothing that goes through here mixes bands, so each one comes out as it would alone.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
# An RGB image, or the bands of a file: uint8 (height, width, bands).
ImageOrBands = Image.Image | Pixels
N = TypeVar("N")


def by_threes(pixels: Pixels, change: Callable[[Image.Image, int], Image.Image]) -> Pixels:
    """``change`` of an image of many bands, uint8 (height, width, bands) before and after.

    Args:
        change: takes three bands as an RGB image, and which three they are, counted from 0; it must treat
            the bands alike, and all threes too.
    """
    bands = pixels.shape[2]
    parts = []
    for start in range(0, bands, 3):
        # The last band fills up the last three.
        places = np.minimum(np.arange(start, start + 3), bands - 1)
        three = Image.fromarray(np.ascontiguousarray(pixels[:, :, places]))
        parts.append(np.asarray(change(three, start // 3), dtype=np.uint8))
    return np.ascontiguousarray(np.concatenate(parts, axis=2)[:, :, :bands])


def in_threes(values: Sequence[N]) -> list[tuple[N, N, N]]:
    """A value a band, as :func:`by_threes` puts bands together."""
    padded = [*values, values[-1], values[-1]]
    return [(padded[at], padded[at + 1], padded[at + 2]) for at in range(0, len(values), 3)]
