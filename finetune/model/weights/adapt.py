"""A network for other images than its source's: another number of channels, another size.

A first convolution for one channel is the sum of the source's three: it answers a grey image as the source
answers that image in grey. Beyond three channels the colours repeat (R, G, B, R, ...), and each copy of a
colour's kernel is divided by the number of its copies: an image whose colours repeat so is answered as the
source answers the image itself.

Position embeddings are laid out for one image size; for another they are resized bicubically as an image
(Dosovitskiy et al. 2021, section 3.2), all but the class token's. timm resizes its networks' by itself.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from finetune.errors import UserError

COLOURS = 3
_POSITIONS = "encoder.pos_embedding"

# The network's name for an entry, the entry of the file, and the network's own -> what to load in place of
# the entry and what was done to it, or None where nothing can be.
Adapt = Callable[[str, Tensor, Tensor], tuple[Tensor, str] | None]


def first_convolution(module: nn.Module) -> str:
    """Path of the convolution that sees the image.

    Raises:
        UserError: there is none that takes three channels.
    """
    for path, each in module.named_modules():
        if isinstance(each, nn.Conv2d) and each.in_channels == COLOURS and each.groups == 1:
            return str(path)
    raise UserError(
        f"model.in_channels: {type(module).__name__} has no first convolution of {COLOURS} channels"
    )


def set_in_channels(module: nn.Module, in_channels: int) -> str:
    """Let a network of three channels take ``in_channels``; returns its first convolution's path."""
    path = first_convolution(module)
    convolution = module.get_submodule(path)
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.weight = nn.Parameter(with_channels(convolution.weight, in_channels))
    convolution.in_channels = in_channels
    return path


def with_channels(weight: Tensor, in_channels: int) -> Tensor:
    """A convolution's weight (D, 3, h, w) for ``in_channels`` channels, as the top of this module says."""
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    colours = [channel % COLOURS for channel in range(in_channels)]
    copies = torch.tensor([colours.count(colour) for colour in colours], dtype=weight.dtype)
    return weight[:, colours] / copies.to(weight.device).view(1, -1, 1, 1)


def repeated(values: tuple[float, ...], in_channels: int) -> tuple[float, ...]:
    """A mean or standard deviation per channel, for another number of channels: averaged, or repeated."""
    if len(values) == in_channels:
        return values
    if in_channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_channels))


def adapter(module: nn.Module, first: str | None, resize: Adapt | None = None) -> Adapt:
    """How entries of the source's shapes become ``module``'s.

    Args:
        module: the network, made for its own channels and size.
        first: path of its first convolution, where its number of channels is not the source's.
        resize: what fits entries to another image size; None: torchvision's way, for a ViT of its own.
    """
    if resize is None and isinstance(module, VisionTransformer):
        resize = _interpolated
    return partial(_adapt, None if first is None else f"{first}.weight", resize)


def _adapt(
    kernel: str | None, resize: Adapt | None, name: str, found: Tensor, own: Tensor
) -> tuple[Tensor, str] | None:
    if name == kernel and found.ndim == own.ndim == 4 and found.shape[1] == COLOURS:
        return with_channels(found, own.shape[1]), f"{COLOURS} channels became {own.shape[1]}"
    return None if resize is None else resize(name, found, own)


def _interpolated(name: str, found: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    if name != _POSITIONS or found.ndim != 3 or found.shape[2] != own.shape[2]:
        return None
    before, after = (round((each.shape[1] - 1) ** 0.5) for each in (found, own))
    if before < 1 or found.shape[1] != before**2 + 1:
        return None
    state = interpolate_embeddings(after, 1, {name: found.float()})
    return state[name], f"interpolated from {before} x {before} places to {after} x {after}"
