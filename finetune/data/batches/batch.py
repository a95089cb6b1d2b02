"""A batch, as readers return it (8-bit pixels) and as training and evaluation see it (float32 images)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.data.cache.decoded import CacheEntry, DecodedCache
from finetune.errors import BadImageError
from finetune.image.pixels import Pixels
from finetune.image.view import Box


@dataclass
class Batch:
    """Images with their classes.

    Attributes:
        images: (N, C, S, S) float32. N is 0 if no image of the batch could be read.
        targets: (N,) int64, or (N, num_classes) float32 after mixing.
        labels: (N,) int64, never mixed.
        indices: the N indices in the split.
        bad: the images that could not be read and are left out.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    indices: tuple[int, ...]
    bad: tuple[BadImageError, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """A copy on ``device``."""
        return dataclasses.replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
        )

    def first(self, count: int) -> "Batch":
        """The first ``count`` images of the batch."""
        parts = {name: getattr(self, name)[:count] for name in ("images", "targets", "labels", "indices")}
        return dataclasses.replace(self, **parts)


class _SentAsArrays:
    """Pickles tensors as NumPy arrays.

    Arrays travel between processes without a copy. torch would put each tensor in a file of its own.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: each.numpy() if isinstance(each, Tensor) else each for name, each in self.__dict__.items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, each in state.items():
            setattr(self, name, torch.from_numpy(each) if isinstance(each, np.ndarray) else each)


@dataclass
class NewlyDecoded(_SentAsArrays):
    """The images that were decoded for a batch and belong in the cache.

    Attributes:
        pixels: uint8; the pixels of all images, one after the other.
        images: for each image its stamp, height, width, and the cache entry that turned out to be unreadable.
    """

    pixels: Tensor
    images: tuple[tuple[bytes, int, int, CacheEntry | None], ...]

    @classmethod
    def join(cls, decoded: Sequence[tuple[bytes, Pixels, CacheEntry | None]]) -> "NewlyDecoded":
        """Join images, each given as stamp, pixels and unreadable cache entry."""
        flat = [pixels.reshape(-1) for _, pixels, _ in decoded]
        joined = np.concatenate(flat) if flat else np.empty(0, dtype=np.uint8)
        images = tuple((stamp, *pixels.shape[:2], unreadable) for stamp, pixels, unreadable in decoded)
        return cls(torch.from_numpy(joined), images)

    def add_to(self, cache: DecodedCache) -> None:
        """Add the images to ``cache``."""
        start, flat = 0, self.pixels.numpy()
        for stamp, height, width, unreadable in self.images:
            end = start + height * width * 3
            cache.add(stamp, flat[start:end].reshape(height, width, 3), unreadable)
            start = end


@dataclass
class PixelBatch(_SentAsArrays):
    """A batch as a reader returns it: 8 bits per value, a quarter of the size of a :class:`Batch`.

    Attributes:
        pixels: uint8, shape (N, S, S, 3); (N, S, S, 1) for grey, (N, S, S, C) for files of C bands.
        erased: the rectangles to erase, each with its position in the batch.
        newly_decoded: images for the cache.
        labels, indices, bad: as in :class:`Batch`.
    """

    pixels: Tensor
    labels: Tensor
    indices: tuple[int, ...]
    erased: tuple[tuple[int, Box], ...] = ()
    newly_decoded: NewlyDecoded | None = None
    bad: tuple[BadImageError, ...] = ()

    def pin_memory(self) -> "PixelBatch":
        """A copy in page-locked memory, from which GPUs copy faster."""
        return dataclasses.replace(self, pixels=self.pixels.pin_memory(), labels=self.labels.pin_memory())
