"""What a loader hands to training and evaluation, and what a reader hands to a loader."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.data.cache.decoded import Decoded, Place
from finetune.errors import BadImageError
from finetune.image.threes import Pixels
from finetune.image.transforms import Box


@dataclass
class Batch:
    """Images with their classes.

    ``images`` is (N, C, S, S) float32; ``targets`` (N,) int64, or (N, num_classes) float32 when mixed;
    ``labels`` (N,) int64, unmixed; ``indices`` the N places in the split. ``bad`` are the images that could
    not be read and are left out; N is 0 where none could.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    indices: tuple[int, ...]
    bad: tuple[BadImageError, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same on another device."""
        return dataclasses.replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
        )

    def first(self, count: int) -> "Batch":
        """The first ``count`` of its images."""
        parts = {name: getattr(self, name)[:count] for name in ("images", "targets", "labels", "indices")}
        return dataclasses.replace(self, **parts)


@dataclass
class Fresh:
    """Bases that were decoded for a batch and are to be kept: ``pixels``, uint8, one after the other; for
    each its stamp, its height and width, and the place where it was looked for in vain.
    """

    pixels: Tensor
    images: tuple[tuple[bytes, int, int, Place | None], ...]

    def __getstate__(self) -> dict[str, Any]:
        return _as_arrays(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(_as_tensors(state))

    @classmethod
    def of(cls, found: Sequence[tuple[bytes, Pixels, Place | None]]) -> "Fresh":
        """Put together what was decoded."""
        flat = [pixels.reshape(-1) for _, pixels, _ in found]
        joined = np.concatenate(flat) if flat else np.empty(0, dtype=np.uint8)
        images = tuple((stamp, *pixels.shape[:2], lost) for stamp, pixels, lost in found)
        return cls(torch.from_numpy(joined), images)

    def keep(self, decoded: Decoded) -> None:
        """Put them where later epochs find them."""
        at, flat = 0, self.pixels.numpy()
        for stamp, height, width, lost in self.images:
            end = at + height * width * 3
            decoded.add(stamp, flat[at:end].reshape(height, width, 3), lost)
            at = end


@dataclass
class PixelBatch:
    """A batch as it is read: 8 bits a colour, a quarter of what it becomes.

    ``pixels`` is (N, S, S, 3) uint8, or (N, S, S, 1) where images are made grey, or (N, S, S, C) where they
    have bands of their own; ``erased`` the boxes to be
    erased, each with the place of its image in the batch; ``fresh`` what is to be kept; the rest as in
    :class:`Batch`.
    """

    pixels: Tensor
    labels: Tensor
    indices: tuple[int, ...]
    erased: tuple[tuple[int, Box], ...] = ()
    fresh: Fresh | None = None
    bad: tuple[BadImageError, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return _as_arrays(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(_as_tensors(state))

    def pin_memory(self) -> "PixelBatch":
        """The same in page-locked memory, from which GPUs copy faster."""
        return dataclasses.replace(self, pixels=self.pixels.pin_memory(), labels=self.labels.pin_memory())


def _as_arrays(state: dict[str, Any]) -> dict[str, Any]:
    """NumPy's arrays go from process to process without a copy; torch's tensors by files of their own."""
    return {name: each.numpy() if isinstance(each, Tensor) else each for name, each in state.items()}


def _as_tensors(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(each) if isinstance(each, np.ndarray) else each for name, each in state.items()
    }
