"""In which order an epoch takes its images. Depends on the seed and the epoch alone."""

import numpy as np
import numpy.typing as npt

from finetune.data.keys import key

Indices = npt.NDArray[np.int64]


def shuffled(count: int, seed: int, epoch: int) -> Indices:
    """All of ``count`` images once; int64, shape (count,)."""
    return np.argsort(_draw(count, seed, "shuffle", epoch), kind="stable").astype(np.int64)


def balanced(targets: Indices, seed: int, epoch: int) -> Indices:
    """As many draws as images, every class equally often (give or take one); int64, shape (N,).

    Within a class no image is drawn for the n-th time before all were drawn n-1 times. Which images of a
    large class are left out, and which classes get a draw more, changes from epoch to epoch.
    """
    classes, counts = np.unique(targets, return_counts=True)
    quotas = np.full(len(classes), len(targets) // len(classes))
    more = np.argsort(_draw(len(classes), seed, "quota", epoch), kind="stable")
    quotas[more[: len(targets) % len(classes)]] += 1
    # Each class's images one after the other, each class shuffled.
    by_class = np.lexsort((_draw(len(targets), seed, "within", epoch), targets))
    starts = np.cumsum(counts) - counts
    draw = np.arange(len(targets)) - np.repeat(np.cumsum(quotas) - quotas, quotas)
    drawn = by_class[np.repeat(starts, quotas) + draw % np.repeat(counts, quotas)]
    order: Indices = drawn[shuffled(len(drawn), seed, epoch)]
    return order


def repeats(order: Indices) -> Indices:
    """For each draw, how often its image was drawn before in this order."""
    by_image = np.argsort(order, kind="stable")
    ranked = order[by_image]
    is_first = np.concatenate(([True], ranked[1:] != ranked[:-1]))
    places = np.arange(len(order))
    since_first = places - np.maximum.accumulate(np.where(is_first, places, 0))
    result = np.empty(len(order), dtype=np.int64)
    result[by_image] = since_first
    return result


def _draw(count: int, seed: int, purpose: str, epoch: int) -> npt.NDArray[np.uint64]:
    # PCG64's raw stream is the same in every version of NumPy.
    return np.random.PCG64(key(seed, purpose, epoch)).random_raw(count)
