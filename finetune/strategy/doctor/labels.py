"""Doubtful labels: images that a classifier, which never saw them, sees in another class than their label.

This is confident learning (Northcutt, Jiang and Chuang 2021) on probabilities from a linear head, which is
solved on the features of the other folds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.holdout.folds import inner_folds
from finetune.errors import DataError
from finetune.evaluation.probabilities import softmax
from finetune.features.softmax import Features, Targets
from finetune.features.solve import LinearProblem, choose_decay, solve

FOLDS = 5

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class DoubtfulLabel:
    """A label that may be wrong.

    Attributes:
        index: the row of the image.
        label: the class that it has.
        suggested: the class that it looks like.
        probability: of ``label``, 0 to 1, from a classifier that did not see the image.
        suggested_probability: of ``suggested``.
    """

    index: int
    label: int
    suggested: int
    probability: float
    suggested_probability: float


def out_of_fold(
    features: Features, targets: Targets, num_classes: int, seed: int, groups: Targets | None = None
) -> Probabilities:
    """Predict each image with a linear head that was solved without its fold.

    Args:
        features: (N, D).
        targets: (N,), in 0..num_classes-1.
        seed: of the folds.
        groups: (N,); no fold splits a group. None: there are no groups.

    Returns:
        Probabilities (N, num_classes), float64.

    Raises:
        DataError: a class has fewer than two images or groups.
    """
    folds = inner_folds(targets, seed, groups, FOLDS)
    if not folds:
        raise DataError("doubtful labels need two or more images, or groups, of each class")
    present, numbers = np.unique(targets, return_inverse=True)
    problem = LinearProblem(features, numbers.reshape(-1).astype(np.int64), len(present))
    decay = choose_decay(problem, folds).decay
    found = np.zeros((len(targets), num_classes))
    for rest, held in folds:
        part = LinearProblem(features[rest], problem.targets[rest], len(present))
        found[held[:, None], present] = softmax(solve(part, decay, rough=True).logits(features[held]))
    return found


def confident_joint(probabilities: Probabilities, targets: Targets) -> NDArray[np.int64]:
    """Count images by label and by the class that they confidently look like: (C, C).

    An image looks confidently like a class if the class's probability is at least its mean over the images
    that have it as their label; of several such classes, like the most probable one. Images that look
    confidently like no class are not counted.

    Args:
        probabilities: (N, C), of images that the classifier did not see.
        targets: (N,), their labels.
    """
    joint = np.zeros((probabilities.shape[1],) * 2, dtype=np.int64)
    looks = _looks_like(probabilities, targets)
    sure = looks >= 0
    np.add.at(joint, (targets[sure], looks[sure]), 1)
    return joint


def doubtful_labels(probabilities: Probabilities, targets: Targets) -> list[DoubtfulLabel]:
    """Return the images that look confidently like another class than their label, most doubtful first.

    The order is by how much more probable the other class is than the label.

    Args:
        probabilities: (N, C), of images that the classifier did not see.
        targets: (N,), their labels.
    """
    looks = _looks_like(probabilities, targets)
    rows = np.flatnonzero((looks >= 0) & (looks != targets))
    own, other = probabilities[rows, targets[rows]], probabilities[rows, looks[rows]]
    return [
        DoubtfulLabel(
            int(rows[at]), int(targets[rows[at]]), int(looks[rows[at]]), float(own[at]), float(other[at])
        )
        for at in np.argsort(own - other, kind="stable")
    ]


def _looks_like(probabilities: Probabilities, targets: Targets) -> NDArray[np.int64]:
    """The class that each image confidently looks like, (N,); -1 for none."""
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(targets)), targets]
    sums = np.bincount(targets, weights=own, minlength=len(counts))
    # No image looks like a class that no label names.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    sure = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.where(sure.max(1) >= 0, sure.argmax(1), -1).astype(np.int64)
