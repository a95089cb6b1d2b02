"""Which augmentations these images bear, measured on frozen features.

Whether mirroring an image keeps its class depends on the classes: it does for hot dogs, it does not for
digits and road signs. Two things are measured, on frozen features and on images that were held out. Can a
classifier tell the copies from the originals? Where it can, such images do not occur among these (of
mirroring: "visual chirality", Lin et al. 2020; in general a two-sample test, Lopez-Paz and Oquab 2017). And
does a classifier of the classes that learns from copies too get worse on images as they are? It does where
the copy of one class looks like another class.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from finetune.data.holdout.folds import Folds
from finetune.features.softmax import Features, Targets
from finetune.features.solve import LinearProblem, solve, total_variance
from finetune.image.pixels import Pixels
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import EvalTransform, TrainTransform
from finetune.image.view import View
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

MIRRORING = frozenset({"flip", "vertical_flip"})
# Shares of the features' total variance: weaker than that, a solution takes long and says no more.
LEAST_DECAY, DETECTOR_DECAY = 1e-4, 1e-3


class Mirrored(EvalTransform):
    """What evaluation sees, mirrored: the rows (axis 0) or the columns (axis 1) the other way round."""

    def __init__(self, preprocessing: Preprocessing, axis: Literal[0, 1]) -> None:
        super().__init__(preprocessing)
        self._axis = axis

    def view(self, base: Pixels, key: int) -> View:
        """The only one there is."""
        return super().view(np.flip(base, self._axis), key)


def transform_of(name: str, preprocessing: Preprocessing) -> Mirrored | TrainTransform:
    """What makes the copies for an entry of ``AUGMENTATIONS``."""
    if name == "flip":
        return Mirrored(preprocessing, 1)
    if name == "vertical_flip":
        return Mirrored(preprocessing, 0)
    return TrainTransform(AUGMENTATIONS[name], preprocessing)


def try_out(
    plain: Sequence[Features],
    copies: Sequence[Features],
    targets: Targets,
    folds: Folds,
    *,
    best: int,
    decay: float,
    mirrored: bool,
) -> Tried:
    """Cross-validate linear classifiers, of the classes and of what is a copy.

    Args:
        plain, copies: by depth, (N, D) each, of the same images.
        targets: (N,), classes from 0 on.
        folds: of :func:`~finetune.data.holdout.folds.inner_folds`; one at least.
        best: the depth at which the classes are told apart best.
        decay: what a classifier of the classes at that depth is to be solved with.
        mirrored: ask what is a copy; at each depth, since late features often know nothing of left and right.
    """
    told = None
    if mirrored:
        told = max(_told(own, others, folds) for own, others in zip(plain, copies, strict=True))
    return Tried(*_taught(plain[best], copies[best], targets, folds, decay), told, len(targets))


def _taught(
    plain: Features,
    copies: Features,
    targets: Targets,
    folds: Folds,
    decay: float,
) -> tuple[float, float, float]:
    """``kept``, ``gain`` and ``error`` of :class:`Tried`."""
    classes = int(targets.max()) + 1
    decay = max(decay, LEAST_DECAY * total_variance(plain))
    kept, without, with_them = (np.zeros(len(targets), dtype=bool) for _ in range(3))
    for train, held in folds:
        alone = solve(LinearProblem(plain[train], targets[train], classes), decay, rough=True)
        both = np.concatenate([plain[train], copies[train]])
        taught = solve(LinearProblem(both, np.tile(targets[train], 2), classes), decay, rough=True)
        own = alone.logits(plain[held]).argmax(1)
        kept[held] = alone.logits(copies[held]).argmax(1) == own
        without[held] = own == targets[held]
        with_them[held] = taught.logits(plain[held]).argmax(1) == targets[held]
    return float(kept.mean()), *_difference(with_them, without)


def _told(plain: Features, copies: Features, folds: Folds) -> float:
    """How often a classifier tells which of the images and copies are copies, 0.5 by chance.

    An image and its copy are on the same side, so that it never knows the one from the other.
    """
    decay, right = DETECTOR_DECAY * total_variance(plain), 0
    for train, held in folds:
        both = np.concatenate([plain[train], copies[train]])
        detector = solve(LinearProblem(both, np.repeat(np.arange(2), len(train)), 2), decay, rough=True)
        right += int((detector.logits(plain[held]).argmax(1) == 0).sum())
        right += int((detector.logits(copies[held]).argmax(1) == 1).sum())
    return right / (2 * len(plain))


def _difference(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """How much more often the first is right, and that number's standard error."""
    n, disagree = len(first), int((first != second).sum())
    gain = float(first.mean() - second.mean())
    return gain, math.sqrt(max(disagree / n - gain**2, 0.0) / n) if disagree else 0.0
