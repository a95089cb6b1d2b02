"""Which images show the same: copies that were recompressed, resized, cropped by a few per cent,
brightened or mirrored, and not merely images of the same kind.

Whether two images are one is judged against how near strangers come in the same set: written digits are
much alike, photographs are not. The thresholds were set on photographs of food and of objects on a white
table, on cliparts, handwriting and 8 x 8 digits, with copies planted in them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.data.machine import cores
from finetune.strategy.doctor.alignment import differences
from finetune.strategy.doctor.candidates import codes, nearest
from finetune.strategy.doctor.image_facts import CHROMA, ImageFacts

Floats = npt.NDArray[np.float32]

# Of each image, as it is and mirrored, so many are laid over it.
NEIGHBOURS = 4
# Cosine between the codes of copies. With a twentieth of each side cut off it is 0.8 and more.
LEAST_COSINE = 0.65
# What is left of copies, and of no two different images.
SURE = 0.002
# What is left of copies that were harmed more, if it is at most this share of what strangers leave.
MOST = 0.03
SHARE_OF_STRANGERS = 0.08
# Which of the neighbours counts as a stranger (from 0); the nearer ones may be copies.
STRANGER = 3
# Where even that one is a copy: strangers are at least this share of what they are elsewhere in the set.
SHARE_OF_SET = 0.5
# What is left between images whose codes have nothing in common.
UNRELATED = 0.5
# Cosine between colours; below, a drawing was painted anew. Grey goes with any colour.
LEAST_COLOUR = 0.5
COLOURLESS = 24.0
# A copy keeps its aspect ratio, but for a crop and some squeezing.
MOST_SQUEEZE = 1.4
CHUNK = 512


@dataclass(frozen=True)
class Twin:
    """Images ``first`` < ``second`` that show the same; ``mirrored`` left to right, or not."""

    first: int
    second: int
    mirrored: bool


def near_duplicates(looks: Sequence[ImageFacts]) -> list[Twin]:
    """All pairs of near-duplicates among images that can be read, in order. Byte-identical ones are some of
    them; images of a single tone are none.
    """
    if len(looks) < 2:
        return []
    thumbs = np.stack([each.luma for each in looks])
    plain, mirrored, usable = codes(thumbs)
    pairs, left = [], []
    for queries, flip in ((plain, False), (mirrored, True)):
        places, cosines = nearest(queries, plain, NEIGHBOURS)
        own = np.repeat(np.arange(len(looks)), places.shape[1])
        other, cosine = places.ravel(), cosines.ravel()
        worth = (cosine >= LEAST_COSINE) & usable[own] & usable[other] & _same_shape(looks, own, other)
        whole = np.full(len(own), UNRELATED, dtype=np.float32)
        whole[worth] = _left_between(thumbs, own[worth], other[worth], flip)
        left.append(whole.reshape(len(looks), -1))
        pairs.append((own, other, flip))
    level = _level_of_strangers(np.concatenate(left, axis=1))
    twins: dict[tuple[int, int], Twin] = {}
    for (own, other, flip), table in zip(pairs, left, strict=True):
        remaining = table.ravel()
        far = np.minimum(level[own], level[other])
        found = (remaining <= SURE) | ((remaining <= MOST) & (remaining <= SHARE_OF_STRANGERS * far))
        for index in np.flatnonzero(found):
            first, second = sorted((int(own[index]), int(other[index])))
            if _same_colour(looks[first], looks[second], flip):
                twins.setdefault((first, second), Twin(first, second, flip))
    return [twins[pair] for pair in sorted(twins)]


def _level_of_strangers(left: Floats) -> Floats:
    """What is left between an image and one that looks much like it but is another; (N,) from (N, K)."""
    if left.shape[1] <= STRANGER:
        return np.full(len(left), UNRELATED, dtype=np.float32)
    own = np.sort(left, axis=1)[:, STRANGER]
    return np.asarray(np.maximum(own, SHARE_OF_SET * np.median(own)))


def _left_between(
    thumbs: npt.NDArray[np.uint8], own: npt.NDArray[np.int64], other: npt.NDArray[np.int64], flip: bool
) -> Floats:
    step = -1 if flip else 1

    def part(start: int) -> Floats:
        end = start + CHUNK
        return differences(thumbs[own[start:end]][:, :, ::step], thumbs[other[start:end]])

    starts = range(0, len(own), CHUNK)
    # NumPy lets go of Python's lock while it computes.
    with ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(part, starts))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _same_shape(
    looks: Sequence[ImageFacts], own: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    ratio = np.log([each.size[0] / each.size[1] for each in looks])
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
