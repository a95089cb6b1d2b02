"""Auxiliary classifiers: heads on the way, whose loss is added in training and which are idle afterwards.

GoogLeNet has two (Szegedy et al. 2015: each weighs 0.3), Inception-v3 one (0.4, as in its reference
training). They belong to the head: they get the target's classes with it, and its learning rate.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.googlenet import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from finetune.errors import FinetuneError
from finetune.model.backbones import AUXILIARY, blueprint
from finetune.model.head import swap_head

# The last layer of each, by backbone.
LAST_LAYERS = {"googlenet": ("aux1.fc2", "aux2.fc2"), "inception_v3": ("AuxLogits.fc",)}
# What a network in train mode returns, and how much each auxiliary loss in it weighs.
LOSS_WEIGHTS: dict[type, float] = {GoogLeNetOutputs: 0.3, InceptionOutputs: 0.4}


def has_room(name: str, image_size: int) -> bool:
    """Whether a backbone has auxiliary classifiers, and images of that size are large enough for them."""
    if name not in AUXILIARY:
        return False
    try:
        with torch.no_grad():
            blueprint(name, image_size=image_size).train()(
                torch.empty(2, 3, image_size, image_size, device="meta")
            )
    except RuntimeError:
        return False
    return True


def swap_auxiliary(module: nn.Module, name: str, num_classes: int, *, init: str) -> None:
    """Give each auxiliary classifier of a backbone a new last layer."""
    for path in LAST_LAYERS[name]:
        swap_head(module, path, num_classes, dropout=0.0, init=init)


def loss_and_logits(
    criterion: Callable[[Tensor, Tensor], Tensor], output: Any, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of what a network in train mode returns, auxiliary ones weighed in; and the main logits."""
    if isinstance(output, Tensor):
        return criterion(output, targets), output
    if type(output) not in LOSS_WEIGHTS:
        raise FinetuneError(
            f"the network returns a {type(output).__name__} in training, not its logits alone"
        )
    logits, *others = output
    loss = criterion(logits, targets)
    for each in others:
        loss = loss + LOSS_WEIGHTS[type(output)] * criterion(each, targets)
    return loss, logits
