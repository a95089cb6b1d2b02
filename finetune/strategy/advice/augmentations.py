"""The augmentations that advice considers, and the measurement of one on frozen features.

Whether a mirrored image keeps its class depends on the classes: a hot dog does, a digit or a road sign does
not. Two things are measured on features of held-out images. First, can a classifier separate copies from
originals? If so, such images do not occur among these (for mirroring: "visual chirality", Lin et al. 2020; in
general a two-sample test, Lopez-Paz and Oquab 2017). Second, does a classifier that also trains on copies get
worse on plain images? It does if the copy of one class resembles another class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finetune.data.holdout.folds import Folds
from finetune.features.softmax import Features, Targets
from finetune.features.solve import LinearProblem, solve, total_variance
from finetune.image.pixels import Pixels
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import EvalTransform, TrainTransform
from finetune.image.view import View
from finetune.recipe.schema import AugmentSection, ColorJitter
from finetune.strategy.advice.facts import Tried
from finetune.strategy.advice.sample import paired_gain

# As a recipe would write them. For the measurement, mirroring flips every copy instead of every other one.
AUGMENTATIONS: Mapping[str, AugmentSection] = {
    "flip": AugmentSection(flip=True),
    "vertical_flip": AugmentSection(vertical_flip=True),
    "crop": AugmentSection(crop="random_resized", scale=(0.35, 1.0)),
    "rotation": AugmentSection(rotation=15.0),
    "color_jitter": AugmentSection(color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)),
}

MIRRORING = frozenset({"flip", "vertical_flip"})
# Shares of the total variance. With a weaker decay, solving takes longer and changes nothing.
LEAST_DECAY, DETECTOR_DECAY = 1e-4, 1e-3


class Mirrored(EvalTransform):
    """The transform of evaluation, mirrored along the rows (axis 0) or the columns (axis 1)."""

    def __init__(self, preprocessing: Preprocessing, axis: Literal[0, 1]) -> None:
        super().__init__(preprocessing)
        self._axis = axis

    def view(self, base: Pixels, key: int) -> View:
        return super().view(np.flip(base, self._axis), key)


def transform_of(name: str, preprocessing: Preprocessing) -> Mirrored | TrainTransform:
    """Return the transform that makes the copies for an entry of ``AUGMENTATIONS``."""
    if name == "flip":
        return Mirrored(preprocessing, 1)
    if name == "vertical_flip":
        return Mirrored(preprocessing, 0)
    return TrainTransform(AUGMENTATIONS[name], preprocessing)


@dataclass(frozen=True, eq=False)
class Originals:
    """Plain images that copies are compared with.

    Attributes:
        features: (N, D) at each depth.
        targets: (N,), classes from 0 on.
        folds: from :func:`~finetune.data.holdout.folds.inner_folds`; one at least.
        best: the depth at which a probe is best.
        decay: of a classifier at that depth.
    """

    features: Sequence[Features]
    targets: Targets
    folds: Folds
    best: int
    decay: float


def compare_copies(originals: Originals, copies: Sequence[Features], *, mirrored: bool) -> Tried:
    """Cross-validate classifiers of the classes, and of originals against copies.

    Args:
        copies: features (N, D) of the same images at each depth.
        mirrored: also separate copies from originals. This is done at each depth, because late features often
            ignore left and right.
    """
    separated = None
    if mirrored:
        pairs = zip(originals.features, copies, strict=True)
        separated = max(_separability(plain, others, originals.folds) for plain, others in pairs)
    unchanged, gain, error = _effect_on_classes(originals, copies[originals.best])
    return Tried(unchanged, gain, error, separated, len(originals.targets))


def _effect_on_classes(originals: Originals, copies: Features) -> tuple[float, float, float]:
    """Measure ``kept``, ``gain`` and ``error`` of :class:`Tried`."""
    plain, targets = originals.features[originals.best], originals.targets
    classes = int(targets.max()) + 1
    decay = max(originals.decay, LEAST_DECAY * total_variance(plain))
    unchanged, without, with_copies = (np.zeros(len(targets), dtype=bool) for _ in range(3))
    for train, held in originals.folds:
        alone = solve(LinearProblem(plain[train], targets[train], classes), decay, rough=True)
        both = np.concatenate([plain[train], copies[train]])
        augmented = solve(LinearProblem(both, np.tile(targets[train], 2), classes), decay, rough=True)
        own = alone.logits(plain[held]).argmax(1)
        unchanged[held] = alone.logits(copies[held]).argmax(1) == own
        without[held] = own == targets[held]
        with_copies[held] = augmented.logits(plain[held]).argmax(1) == targets[held]
    return float(unchanged.mean()), *paired_gain(with_copies, without)


def _separability(plain: Features, copies: Features, folds: Folds) -> float:
    """Measure how often a classifier separates copies from originals, 0.5 by chance.

    An image and its copy are always in the same fold.
    """
    decay, correct = DETECTOR_DECAY * total_variance(plain), 0
    for train, held in folds:
        both = np.concatenate([plain[train], copies[train]])
        problem = LinearProblem(both, np.repeat(np.arange(2), len(train)), 2)
        detector = solve(problem, decay, rough=True)
        correct += int((detector.logits(plain[held]).argmax(1) == 0).sum())
        correct += int((detector.logits(copies[held]).argmax(1) == 1).sum())
    return correct / (2 * len(plain))
