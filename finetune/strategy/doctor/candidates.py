"""Finds candidates for near-duplicates: the nearest neighbours of each image by a perceptual code.

The code of an image is its thumbnail at 16 x 16, standardised (so that brightness and contrast do not
matter), minus the mean of all images of the set, as a unit vector. Codes of copies, crops and recompressions
point in the same direction. All pairs are compared by matrix products in blocks.
"""

import numpy as np
import numpy.typing as npt

from finetune.strategy.doctor.alignment import blurred

Floats = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]

CODE_SIDE = 16
# Images with a smaller standard deviation (of 255) are too plain to be compared.
PLAIN = 3.0
BLOCK = 512


def codes(thumbs: npt.NDArray[np.uint8]) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Compute codes of images and of their mirror images, float32 (N, 256) each, and which images have one.

    ``thumbs`` is uint8, (N, S, S), S a multiple of 16. Images that are too plain get zeros.
    """
    factor = thumbs.shape[1] // CODE_SIDE
    shape = (len(thumbs), CODE_SIDE, factor, CODE_SIDE, factor)
    small = blurred(thumbs.reshape(shape).mean(axis=(2, 4), dtype=np.float32))
    deviation = small.std(axis=(1, 2), keepdims=True)
    usable = deviation[:, 0, 0] >= PLAIN
    standard = (small - small.mean(axis=(1, 2), keepdims=True)) / np.maximum(deviation, PLAIN)
    shared = standard[usable].mean(axis=0) if usable.sum() > 2 else np.zeros_like(small[0])

    def unit(values: Floats) -> Floats:
        rows = (values - shared).reshape(len(values), -1) * usable[:, None]
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)

    return unit(standard), unit(standard[:, :, ::-1]), usable


def nearest(queries: Floats, codes_: Floats, k: int) -> tuple[Pairs, Floats]:
    """Find the ``k`` codes nearest to each query except itself: places, int64 (N, k), and cosines, (N, k)."""
    count = len(codes_)
    k = min(k, count - 1)
    places, cosines = np.empty((count, k), dtype=np.int64), np.empty((count, k), dtype=np.float32)
    for start in range(0, count, BLOCK):
        block = queries[start : start + BLOCK] @ codes_.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        top = np.argpartition(block, count - k, axis=1)[:, count - k :]
        found = np.take_along_axis(block, top, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        places[start : start + BLOCK] = np.take_along_axis(top, order, axis=1)
        cosines[start : start + BLOCK] = np.take_along_axis(found, order, axis=1)
    return places, cosines
