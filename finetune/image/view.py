"""A view: one augmented version of an image, drawn from a key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.image.pixels import Pixels

# Top, left, height and width in pixels.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """An augmented version of an image.

    Attributes:
        pixels: uint8 (S, S, depth). The depth is 3 for colours, 1 for grey, or the number of bands.
        erased: a rectangle to erase after normalisation.
    """

    pixels: Pixels
    erased: Box | None = None


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Seed torch's CPU generator with ``key``, and restore its state afterwards."""
    generator = torch.default_generator
    before = generator.get_state()
    # Not torch.manual_seed, which would seed GPUs, too.
    generator.manual_seed(key)
    try:
        yield
    finally:
        generator.set_state(before)


def stand_in(*shape: int) -> Tensor:
    """A tensor without data. torchvision's transforms draw their parameters from the shape alone."""
    return torch.empty(shape, device="meta")
