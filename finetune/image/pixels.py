"""Pixel arrays, and the processing of images with many bands, three bands at a time.

Pillow and torchvision process images of three colours. Operations that treat each band alone, such as
resizing, give the same values for a band whichever two bands are beside it.
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


def map_triples(pixels: Pixels, change: Callable[[Image.Image, int], Image.Image]) -> Pixels:
    """Apply ``change`` to an image of many bands: uint8 (height, width, bands).

    Args:
        change: takes three bands as an RGB image, and the number of the triple, counted from 0. It must not
            mix bands, and must treat all of them alike.
    """
    bands = pixels.shape[2]
    changed = []
    for start in range(0, bands, 3):
        # The last band is repeated to complete the last triple.
        places = np.minimum(np.arange(start, start + 3), bands - 1)
        triple = Image.fromarray(np.ascontiguousarray(pixels[:, :, places]))
        changed.append(np.asarray(change(triple, start // 3), dtype=np.uint8))
    return np.ascontiguousarray(np.concatenate(changed, axis=2)[:, :, :bands])


def triples(values: Sequence[N]) -> list[tuple[N, N, N]]:
    """Group one value per band into triples, as :func:`map_triples` groups bands."""
    padded = [*values, values[-1], values[-1]]
    return [(padded[at], padded[at + 1], padded[at + 2]) for at in range(0, len(values), 3)]
