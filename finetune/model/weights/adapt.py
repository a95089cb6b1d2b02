"""Adapts a network and its weights to another number of channels or another image size.

A first convolution for one channel is the sum of the source's three: its response to a grey image is the
source's response to that image with three equal channels. For more than three channels the colours repeat (R,
G, B, R, ...), and each kernel of a colour is divided by the number of its copies: an image whose channels
repeat in this way gets the source's response to its colours.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from finetune.errors import UserError

COLOURS = 3

# Called with an entry's name, the file's tensor and the network's. Returns the tensor to load instead and a
# description of the change, or None if the entry cannot be adapted.
Adapt = Callable[[str, Tensor, Tensor], tuple[Tensor, str] | None]


def first_convolution(module: nn.Module) -> str:
    """Find the path of the convolution that takes the image.

    Raises:
        UserError: no convolution takes three channels.
    """
    for path, each in module.named_modules():
        if isinstance(each, nn.Conv2d) and each.in_channels == COLOURS and each.groups == 1:
            return str(path)
    raise UserError(
        f"model.in_channels: {type(module).__name__} has no first convolution of {COLOURS} channels"
    )


def set_in_channels(module: nn.Module, in_channels: int) -> str:
    """Make a network of three channels take ``in_channels``, and return its first convolution's path."""
    path = first_convolution(module)
    convolution = module.get_submodule(path)
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.weight = nn.Parameter(with_channels(convolution.weight, in_channels))
    convolution.in_channels = in_channels
    return path


def with_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Convert a convolution's weight (D, 3, h, w) to (D, in_channels, h, w), as described above."""
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    colours = [channel % COLOURS for channel in range(in_channels)]
    copies = torch.tensor([colours.count(colour) for colour in colours], dtype=weight.dtype)
    return weight[:, colours] / copies.to(weight.device).view(1, -1, 1, 1)


def repeated(values: tuple[float, ...], in_channels: int) -> tuple[float, ...]:
    """Average (for one channel) or repeat a mean or standard deviation per channel."""
    if len(values) == in_channels:
        return values
    if in_channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_channels))


def adapter(first_conv: str | None, resize: Adapt | None = None) -> Adapt:
    """Build the function that adapts entries of the source's shape.

    Args:
        first_conv: path of the first convolution if its number of channels changed, else None.
        resize: adapts entries to another image size.
    """

    def adapt(name: str, found: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
        is_kernel = first_conv is not None and name == f"{first_conv}.weight"
        if is_kernel and found.ndim == own.ndim == 4 and found.shape[1] == COLOURS:
            return with_channels(found, own.shape[1]), f"{COLOURS} channels became {own.shape[1]}"
        return None if resize is None else resize(name, found, own)

    return adapt
