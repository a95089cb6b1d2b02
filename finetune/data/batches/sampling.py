"""Sampling: which images an epoch draws, and in which order. It depends on the seed and the epoch alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from finetune.data.keys import key
from finetune.errors import require_known

Indices = npt.NDArray[np.int64]
Sampler = Literal["shuffle", "balanced"]
# The index of an image in its split, and the key of its augmentation.
Draw = tuple[int, int]


@dataclass(frozen=True)
class Sampling:
    """Draws the images of each epoch.

    Attributes:
        seed: the seed of the run.
        sampler: "shuffle" draws every image once per epoch. "balanced" makes as many draws, but draws every
            class equally often.
        views: the number of different views per image: epoch e shows view e mod ``views``. None shows a
            new view in every epoch.

    Raises:
        FinetuneError: ``sampler`` is unknown.
    """

    seed: int
    sampler: Sampler = "shuffle"
    views: int | None = None

    def __post_init__(self) -> None:
        require_known("sampler", self.sampler, get_args(Sampler))

    def draws(self, targets: Indices, epoch: int, bounds: Iterable[tuple[int, int]]) -> Iterator[list[Draw]]:
        """Yield the draws of each batch.

        Args:
            targets: class number of each image; int64, shape (N,).
            epoch: counted from 0.
            bounds: first draw and end of each batch.
        """
        if self.sampler == "balanced":
            order = balanced(targets, self.seed, epoch)
        else:
            order = shuffled(len(targets), self.seed, epoch)
        view = epoch if self.views is None else epoch % self.views
        repeat = repeats(order)
        for first, end in bounds:
            drawn = zip(order[first:end].tolist(), repeat[first:end].tolist(), strict=True)
            yield [(i, key(self.seed, "picture", view, i, count)) for i, count in drawn]


def shuffled(count: int, seed: int, epoch: int) -> Indices:
    """A random permutation of ``count`` images; int64, shape (count,)."""
    return np.argsort(_random(count, seed, "shuffle", epoch), kind="stable").astype(np.int64)


def balanced(targets: Indices, seed: int, epoch: int) -> Indices:
    """As many draws as there are images, with every class drawn equally often; int64, shape (N,).

    Where the number of images is no multiple of the number of classes, some classes get one draw more; these
    classes change from epoch to epoch, and so do the images of a large class that are left out. Within a
    class, every image is drawn n times before any is drawn n + 1 times.
    """
    classes, counts = np.unique(targets, return_counts=True)
    quotas = np.full(len(classes), len(targets) // len(classes))
    extra = np.argsort(_random(len(classes), seed, "quota", epoch), kind="stable")
    quotas[extra[: len(targets) % len(classes)]] += 1
    # Sorted by class, and shuffled within each class.
    by_class = np.lexsort((_random(len(targets), seed, "within", epoch), targets))
    starts = np.cumsum(counts) - counts
    draw = np.arange(len(targets)) - np.repeat(np.cumsum(quotas) - quotas, quotas)
    drawn = by_class[np.repeat(starts, quotas) + draw % np.repeat(counts, quotas)]
    order: Indices = drawn[shuffled(len(drawn), seed, epoch)]
    return order


def repeats(order: Indices) -> Indices:
    """For each draw, how often the same image was drawn earlier in ``order``."""
    by_image = np.argsort(order, kind="stable")
    ranked = order[by_image]
    is_first = np.concatenate(([True], ranked[1:] != ranked[:-1]))
    places = np.arange(len(order))
    since_first = places - np.maximum.accumulate(np.where(is_first, places, 0))
    result = np.empty(len(order), dtype=np.int64)
    result[by_image] = since_first
    return result


def _random(count: int, seed: int, purpose: str, epoch: int) -> npt.NDArray[np.uint64]:
    # The raw stream of PCG64 is the same in every version of NumPy.
    return np.random.PCG64(key(seed, purpose, epoch)).random_raw(count)
