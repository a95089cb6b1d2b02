"""Finds near-duplicates: copies that were recompressed, resized, slightly cropped, brightened or mirrored.

Different images of the same kind are not near-duplicates. Whether two images count as copies depends on how
similar different images of the same set are: handwritten digits are much alike, photographs are not. The
thresholds were chosen on photographs of food and of objects on a white table, on cliparts, handwriting and
8 x 8 digits, with planted copies.

Candidates are the nearest neighbours of each image by a perceptual code: the thumbnail at 16 x 16,
standardised (so that brightness and contrast do not matter), minus the mean of the set, as a unit vector.
Codes of copies, crops and recompressions point in the same direction. Candidates are then aligned.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.data.machine import cores
from finetune.strategy.doctor.alignment import blurred, differences
from finetune.strategy.doctor.image_facts import CHROMA, ImageFacts

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

CODE_SIDE = 16
# Images with a smaller standard deviation (of 255) are too plain to be compared.
PLAIN = 3.0
# Codes are compared by matrix products of this many rows.
BLOCK = 512
# The number of candidates that each image is aligned with, plain and mirrored.
NEIGHBOURS = 4
# The least cosine between the codes of copies. With a twentieth of each side cropped, it is above 0.8.
LEAST_COSINE = 0.65
# A difference that only copies have.
SURE = 0.002
# The largest difference of more distorted copies; it must also be below this share of that of strangers.
MOST = 0.03
SHARE_OF_STRANGERS = 0.08
# The candidate that counts as a stranger (from 0); nearer ones may be copies.
STRANGER = 3
# That candidate may be a copy too, so the difference of strangers is at least this share of the set's median.
SHARE_OF_SET = 0.5
# The difference of images whose codes have nothing in common.
UNRELATED = 0.5
# The least cosine between the colours of copies. Grey matches any colour.
LEAST_COLOUR = 0.5
COLOURLESS = 24.0
# The largest change of the aspect ratio of a copy, by cropping and squeezing.
MOST_SQUEEZE = 1.4
CHUNK = 512


@dataclass(frozen=True)
class NearDuplicate:
    """Two images with the same content, ``first`` < ``second``; ``mirrored``: left and right are swapped."""

    first: int
    second: int
    mirrored: bool


def find_near_duplicates(images: Sequence[ImageFacts]) -> list[NearDuplicate]:
    """Find all pairs of near-duplicates among readable images, in order.

    Byte-identical images are included; images of a single tone are not.
    """
    if len(images) < 2:
        return []
    thumbs = np.stack([each.luma for each in images])
    plain, mirrored, usable = codes(thumbs)
    pairs, left = [], []
    for queries, flip in ((plain, False), (mirrored, True)):
        places, cosines = nearest(queries, plain, NEIGHBOURS)
        own = np.repeat(np.arange(len(images)), places.shape[1])
        other, cosine = places.ravel(), cosines.ravel()
        worth = (cosine >= LEAST_COSINE) & usable[own] & usable[other] & _same_shape(images, own, other)
        whole = np.full(len(own), UNRELATED, dtype=np.float32)
        whole[worth] = _aligned_differences(thumbs, own[worth], other[worth], flip)
        left.append(whole.reshape(len(images), -1))
        pairs.append((own, other, flip))
    level = _stranger_difference(np.concatenate(left, axis=1))
    pairs_found: dict[tuple[int, int], NearDuplicate] = {}
    for (own, other, flip), table in zip(pairs, left, strict=True):
        remaining = table.ravel()
        far = np.minimum(level[own], level[other])
        found = (remaining <= SURE) | ((remaining <= MOST) & (remaining <= SHARE_OF_STRANGERS * far))
        for index in np.flatnonzero(found):
            first, second = sorted((int(own[index]), int(other[index])))
            if _same_colour(images[first], images[second], flip):
                pairs_found.setdefault((first, second), NearDuplicate(first, second, flip))
    return [pairs_found[pair] for pair in sorted(pairs_found)]


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


def nearest(queries: Floats, codes_: Floats, k: int) -> tuple[Places, Floats]:
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


def _stranger_difference(left: Floats) -> Floats:
    """Estimate the difference between each image and a similar but different one: (N,) from (N, K)."""
    if left.shape[1] <= STRANGER:
        return np.full(len(left), UNRELATED, dtype=np.float32)
    own = np.sort(left, axis=1)[:, STRANGER]
    return np.asarray(np.maximum(own, SHARE_OF_SET * np.median(own)))


def _aligned_differences(thumbs: npt.NDArray[np.uint8], own: Places, other: Places, flip: bool) -> Floats:
    step = -1 if flip else 1

    def part(start: int) -> Floats:
        end = start + CHUNK
        return differences(thumbs[own[start:end]][:, :, ::step], thumbs[other[start:end]])

    starts = range(0, len(own), CHUNK)
    # NumPy releases the GIL while it computes.
    with ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(part, starts))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _same_shape(images: Sequence[ImageFacts], own: Places, other: Places) -> npt.NDArray[np.bool_]:
    ratio = np.log([each.size[0] / each.size[1] for each in images])
    return np.asarray(np.abs(ratio[own] - ratio[other]) <= np.log(MOST_SQUEEZE))


def _same_colour(first: ImageFacts, second: ImageFacts, flip: bool) -> bool:
    one, two = _colour(first), _colour(second)
    if flip:
        two = two[:, ::-1]
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(two))
    if min(lengths) < COLOURLESS:
        return True
    return float((one * two).sum()) >= LEAST_COLOUR * lengths[0] * lengths[1]


def _colour(image: ImageFacts) -> Floats:
    return np.frombuffer(image.chroma, dtype=np.uint8).reshape(CHROMA, CHROMA, 2).astype(np.float32) - 128
