"""How a split is read: batch size, loader processes, unreadable images, device."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from finetune.data.machine import cores
from finetune.errors import require_known

OnBadImage = Literal["error", "skip"]

CPU = torch.device("cpu")
MAX_WORKERS = 8


@dataclass(frozen=True)
class ReadOptions:
    """How the images of a split are read. No option changes the bits of an image.

    Attributes:
        batch_size: images per batch.
        workers: number of loader processes; 0 reads in this process.
        on_bad_image: "error" raises BadImageError for an unreadable image; "skip" leaves it out and lists
            it in :attr:`~finetune.data.batches.batch.Batch.bad`.
        device: where the images of a batch end up.

    Raises:
        FinetuneError: ``on_bad_image`` is unknown.
    """

    batch_size: int
    workers: int = 0
    on_bad_image: OnBadImage = "error"
    device: torch.device = CPU

    def __post_init__(self) -> None:
        require_known("on_bad_image", self.on_bad_image, get_args(OnBadImage))


def default_workers() -> int:
    """The number of loader processes for ``workers: auto``.

    0 on one or two cores; otherwise the number of cores minus two, at most 8.
    """
    usable = cores()
    return 0 if usable <= 2 else min(usable - 2, MAX_WORKERS)
