"""Images of a batch mixed with each other, as a whole batch."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from finetune.image.transforms import seeded


class BatchMixer:
    """mixup (Zhang et al. 2018), cutmix (Yun et al. 2019), or for each batch one of the two, evenly.

    Each image is mixed with the one before it in the batch. A batch of one image stays as it is.
    """

    def __init__(self, mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> None:
        self.num_classes = num_classes
        self._ways: list[v2.Transform] = []
        if mixup_alpha:
            self._ways.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
        if cutmix_alpha:
            self._ways.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))

    def __call__(self, images: Tensor, targets: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) and class numbers (N,) -> mixed images, targets (N, num_classes) float32."""
        if len(images) < 2 or not self._ways:
            return images, torch.nn.functional.one_hot(targets, self.num_classes).float()
        with seeded(key):
            way = self._ways[int(torch.randint(len(self._ways), ()))]
            mixed, soft = way(images, targets)
        return mixed, soft
