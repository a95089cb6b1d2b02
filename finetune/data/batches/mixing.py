"""Mixes the images of a batch with each other."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from finetune.image.view import seeded
from finetune.recipe.schema import AugmentSection


class BatchMixer:
    """mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019); with both, one of the two at random per batch.

    Each image is mixed with the image before it in the batch. A batch of one image stays as it is.
    """

    def __init__(self, mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> None:
        self.num_classes = num_classes
        self._methods: list[v2.Transform] = []
        if mixup_alpha:
            self._methods.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
        if cutmix_alpha:
            self._methods.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))

    def __call__(self, images: Tensor, targets: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Mix images (N, C, S, S) and class numbers (N,).

        Returns:
            The mixed images, and their targets, (N, num_classes) float32.
        """
        if len(images) < 2 or not self._methods:
            return images, torch.nn.functional.one_hot(targets, self.num_classes).float()
        with seeded(key):
            method = self._methods[int(torch.randint(len(self._methods), ()))]
            mixed, soft_targets = method(images, targets)
        return mixed, soft_targets


def mixer_for(augment: AugmentSection, num_classes: int) -> BatchMixer | None:
    """The mixer that a recipe asks for; None if it asks for none."""
    if not (augment.mixup_alpha or augment.cutmix_alpha):
        return None
    return BatchMixer(augment.mixup_alpha, augment.cutmix_alpha, num_classes)
