"""Which augmentations these pictures bear, measured on frozen features.

Whether mirroring a picture keeps its class depends on the classes: it does for hot dogs, it does not for
digits and road signs. What counts is measured the way it counts: a linear classifier learns from pictures and
from pictures with their augmented copies, and both are asked about pictures as they are that neither saw.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from finetune.data.preprocessing import Preprocessing
from finetune.data.transforms import EvalTransform, TrainTransform
from finetune.features.solve import FOLDS, Features, Targets, choose_decay, solve
from finetune.recipe.schema import AugmentSection, ColorJitter
from finetune.strategy.advice.facts import Tried

# What is tried, as a recipe would say it. Mirrored copies are mirrored all, in place of one in two.
AUGMENTATIONS: Mapping[str, AugmentSection] = {
    "flip": AugmentSection(flip=True),
    "vertical_flip": AugmentSection(vertical_flip=True),
    "crop": AugmentSection(crop="random_resized", scale=(0.35, 1.0)),
    "rotation": AugmentSection(rotation=15.0),
    "color_jitter": AugmentSection(color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)),
}


class Mirrored(EvalTransform):
    """Evaluation's own preprocessing of the mirrored picture."""

    def __init__(self, preprocessing: Preprocessing, method: Image.Transpose) -> None:
        super().__init__(preprocessing)
        self._method = method

    def __call__(self, image: Image.Image, key: int = 0) -> Tensor:
        """As :class:`EvalTransform`."""
        return super().__call__(image.transpose(self._method), key)


def transform_of(name: str, preprocessing: Preprocessing) -> EvalTransform | TrainTransform:
    """What makes the copies for an entry of ``AUGMENTATIONS``."""
    if name == "flip":
        return Mirrored(preprocessing, Image.Transpose.FLIP_LEFT_RIGHT)
    if name == "vertical_flip":
        return Mirrored(preprocessing, Image.Transpose.FLIP_TOP_BOTTOM)
    return TrainTransform(AUGMENTATIONS[name], preprocessing)


def try_out(plain: Features, copies: Features, targets: Targets, seed: int) -> Tried:
    """Cross-validate a linear classifier with and without the copies; what is held out are plain pictures.

    Args:
        plain, copies: (N, D) each, of the same pictures; ``targets`` (N,) has each class from 0 on
            twice or more.
    """
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(targets)
    num_classes, folds = len(counts), min(FOLDS, int(counts.min()))
    decay = choose_decay(plain, targets, num_classes, seed).decay
    kept, without, with_them = (np.zeros(len(targets), dtype=bool) for _ in range(3))
    for train, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(plain, targets):
        head = solve(plain[train], targets[train], num_classes, decay)
        both = np.concatenate([plain[train], copies[train]])
        taught = solve(both, np.concatenate([targets[train]] * 2), num_classes, decay)
        own = head.logits(plain[held]).argmax(1)
        kept[held] = head.logits(copies[held]).argmax(1) == own
        without[held] = own == targets[held]
        with_them[held] = taught.logits(plain[held]).argmax(1) == targets[held]
    return Tried(float(kept.mean()), *_difference(with_them, without))


def _difference(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """How much more often the first is right, and that number's standard error."""
    n, disagree = len(first), int((first != second).sum())
    gain = float(first.mean() - second.mean())
    return gain, math.sqrt(max(disagree / n - gain**2, 0.0) / n) if disagree else 0.0
