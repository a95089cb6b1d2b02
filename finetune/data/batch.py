"""What a loader hands to training and evaluation."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.errors import BadImageError


@dataclass
class Batch:
    """Pictures with their classes.

    ``images`` is (N, 3, S, S) float32; ``targets`` (N,) int64, or (N, num_classes) float32 when mixed;
    ``labels`` (N,) int64, unmixed; ``indices`` the N places in the split. ``bad`` are the pictures that could
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
        """The first ``count`` of its pictures."""
        parts = {name: getattr(self, name)[:count] for name in ("images", "targets", "labels", "indices")}
        return dataclasses.replace(self, **parts)

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory, from which GPUs copy faster."""
        return dataclasses.replace(
            self,
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            labels=self.labels.pin_memory(),
        )
