"""A batch, as readers return it (8-bit pixels) and as training and evaluation see it (float32 images)."""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.data.cache.decoded import CacheEntry
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


class NewlyDecoded(NamedTuple):
    """An image that was decoded for a batch and belongs in the cache.

    Attributes:
        stamp: its stamp.
        pixels: uint8 (height, width, 3).
        unreadable: the cache entry that turned out to be unreadable.
    """

    stamp: bytes
    pixels: Pixels
    unreadable: CacheEntry | None


@dataclass
class PixelBatch:
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
    newly_decoded: tuple[NewlyDecoded, ...] = ()
    bad: tuple[BadImageError, ...] = ()

    def pin_memory(self) -> "PixelBatch":
        """A copy in page-locked memory, from which GPUs copy faster."""
        return dataclasses.replace(self, pixels=self.pixels.pin_memory(), labels=self.labels.pin_memory())

    # Tensors are pickled as NumPy arrays, which travel between processes without a copy. torch would put each
    # tensor in a file.

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"pixels": self.pixels.numpy(), "labels": self.labels.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {name: torch.from_numpy(state[name]) for name in ("pixels", "labels")}
