"""ShuffleNet's shuffle of channels, in the memory format that its images have.

torchvision's gives contiguous images on whatever it is given. Everything after a shuffle then works on two
memory formats at once, which takes torch's ReLU and BatchNorm longer.
"""

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

# Where torchvision's ShuffleNets find the function at each call.
HOME = "torchvision.models.shufflenetv2"


@contextlib.contextmanager
def shuffles_keep_format() -> Iterator[None]:
    """While active, torchvision's ShuffleNets shuffle by :func:`shuffle`; nothing is done where none is."""
    home = sys.modules.get(HOME)
    if home is None:
        yield
        return
    theirs = home.channel_shuffle
    home.channel_shuffle = shuffle  # type: ignore[attr-defined]
    try:
        yield
    finally:
        home.channel_shuffle = theirs  # type: ignore[attr-defined]


def shuffle(images: Tensor, groups: int) -> Tensor:
    """Channels of ``groups`` groups one by one in turns: (N, C, H, W) to the same, in its memory format."""
    if not images.is_contiguous(memory_format=torch.channels_last):
        return torch.channel_shuffle(images, groups)
    n, channels, height, width = images.shape
    places = images.permute(0, 2, 3, 1).view(n, height, width, groups, channels // groups)
    return places.transpose(3, 4).reshape(n, height, width, channels).permute(0, 3, 1, 2)
