"""ShuffleNet's channel shuffle in the memory format of its input.

torchvision's shuffle always returns contiguous images. The layers after it then mix two memory formats, which
is slower in torch's ReLU and BatchNorm. Keeping channels-last avoids that; the values are the same.
``FINETUNE_CPU_KERNELS=0`` turns it off.
"""

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

# The module where torchvision's ShuffleNets find the function at each call.
HOME = "torchvision.models.shufflenetv2"


@contextlib.contextmanager
def shuffles_keep_format() -> Iterator[None]:
    """Make torchvision's ShuffleNets use :func:`shuffle` while active, if they are imported."""
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
    """Interleave the channels of ``groups`` groups: (N, C, H, W) to the same shape and memory format."""
    if not images.is_contiguous(memory_format=torch.channels_last):
        return torch.channel_shuffle(images, groups)
    n, channels, height, width = images.shape
    places = images.permute(0, 2, 3, 1).view(n, height, width, groups, channels // groups)
    return places.transpose(3, 4).reshape(n, height, width, channels).permute(0, 3, 1, 2)
