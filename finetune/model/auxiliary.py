"""Auxiliary classifiers: extra heads in the body whose losses are added in training.

GoogLeNet has two (Szegedy et al. 2015: weight 0.3 each), Inception-v3 has one (weight 0.4, as in its
reference training). They belong to the head: they get the target's classes and the head's learning rate. In
eval mode they are not computed.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.models.googlenet import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from finetune.errors import FinetuneError
from finetune.model.backbones import find_backbone

# Weight of each auxiliary loss, by the type that a network returns in train mode.
LOSS_WEIGHTS: dict[type, float] = {GoogLeNetOutputs: 0.3, InceptionOutputs: 0.4}


def has_room(name: str, image_size: int) -> bool:
    """Whether a backbone has auxiliary classifiers and images of this size are large enough for them."""
    backbone = find_backbone(name)
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    with contextlib.suppress(RuntimeError), torch.no_grad():
        if backbone.auxiliary_heads:
            backbone.blueprint(image_size=image_size).train()(images)
            return True
    return False


def loss_and_logits(
    criterion: Callable[[Tensor, Tensor], Tensor], output: Any, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss of a network's output in train mode, auxiliary losses included, and the main logits."""
    if isinstance(output, Tensor):
        return criterion(output, targets), output
    if type(output) not in LOSS_WEIGHTS:
        raise FinetuneError(f"the network returns a {type(output).__name__} in training, not logits")
    logits, *others = output
    loss = criterion(logits, targets)
    for each in others:
        loss = loss + LOSS_WEIGHTS[type(output)] * criterion(each, targets)
    return loss, logits
