"""Doubtful labels: images that a classifier, which never saw them, sees in another class than their label.

This is confident learning (Northcutt, Jiang and Chuang 2021) on probabilities from a linear head, which is
solved on the features of the other folds, and from the labels of the nearest other images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.holdout.folds import Folds, inner_folds
from finetune.decision.probabilities import softmax
from finetune.errors import DataError
from finetune.features.softmax import Features, Objective, Targets, minimise
from finetune.features.solve import GRID, ROUGH, ROUGH_STEPS, LinearProblem, choose_decay, total_variance
from finetune.strategy.advice.sample import repeated

FOLDS = 5
# The mean over several divisions into folds finds more wrong labels than one.
REPEATS = 3
# The share of the nearest images' labels in the probabilities, their number, and how much more a near one
# counts. Chosen on the sets of docs/measured/labels.md.
NEIGHBOURS_SHARE, NEIGHBOURS, STEEPNESS = 0.3, 10, 10.0
# Rows whose similarities are computed at a time.
CHUNK = 1024
# Images times features times classes. Above this, there is one division and a fixed decay, for the time.
LARGE = 20_000_000

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
        is_sure: whether the image looks confidently like ``suggested``, as :func:`confident_joint` counts.
    """

    index: int
    label: int
    suggested: int
    probability: float
    suggested_probability: float
    is_sure: bool = True


def out_of_fold(
    features: Features, targets: Targets, num_classes: int, seed: int, groups: Targets | None = None
) -> Probabilities:
    """Predict each image with a linear head that was solved without its fold, and with its nearest images.

    Args:
        features: (N, D). They are standardised.
        targets: (N,), in 0..num_classes-1.
        seed: of the folds.
        groups: (N,); no fold splits a group, and images of a group are not asked about each other. None:
            there are no groups.

    Returns:
        Probabilities (N, num_classes), float64: the mean of the head's over three divisions into five folds,
        averaged with the labels of the nearest images. A class with a single image or group cannot be
        learned without it: such images get probability 1 for their label.

    Raises:
        DataError: no two classes have two or more images, or groups; or no folds keep the groups together.
    """
    found = np.zeros((len(targets), num_classes))
    found[np.arange(len(targets)), targets] = 1.0
    rows = repeated(targets, groups, np.arange(len(targets)))
    classes, numbers = np.unique(targets[rows], return_inverse=True)
    numbers = numbers.reshape(-1).astype(np.int64)
    own = None if groups is None else groups[rows]
    is_large = len(rows) * min(features.shape) * len(classes) > LARGE
    divisions = [
        inner_folds(numbers, (seed + each) % 2**32, own, FOLDS) if len(classes) > 1 else []
        for each in range(1 if is_large else REPEATS)
    ]
    if not all(divisions):
        raise DataError("doubtful labels need two or more images, or groups, of each of two classes")
    problem = LinearProblem(standardised(features[rows]), numbers, len(classes))
    if is_large:
        decay = GRID[1] * total_variance(problem.features)
    else:
        decay = choose_decay(problem, divisions[0]).decay
    head = np.mean([_predict(problem, folds, decay) for folds in divisions], axis=0)
    near = nearest_labels(problem.features, numbers, len(classes), own)
    found[rows[:, None], classes] = (1 - NEIGHBOURS_SHARE) * head + NEIGHBOURS_SHARE * near
    return found


def standardised(features: Features) -> NDArray[np.float32]:
    """Features (N, D), each less its mean and divided by its standard deviation; constant ones become 0."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    found: NDArray[np.float32] = (centred / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    return found


def nearest_labels(
    features: Features, targets: Targets, num_classes: int, groups: Targets | None = None
) -> Probabilities:
    """The shares of the classes among the labels of the nearest other images: (N, num_classes).

    Nearest are the ten with the largest cosine similarity s. Each counts exp(10 s).

    Args:
        features: (N, D), centred.
        groups: (N,); images of the same group are left out. None: only the image itself is.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1.0)
    groups = np.arange(len(targets)) if groups is None else groups
    most = min(NEIGHBOURS, len(targets) - 1)
    found = np.zeros((len(targets), num_classes))
    for start in range(0, len(targets), CHUNK):
        part = slice(start, start + CHUNK)
        similar = (unit[part] @ unit.T).astype(np.float64)
        similar[groups[part, None] == groups] = -np.inf
        near = np.argpartition(-similar, most - 1, axis=1)[:, :most]
        weights = np.exp(STEEPNESS * np.take_along_axis(similar, near, axis=1))
        places = np.broadcast_to(np.arange(start, start + len(near))[:, None], near.shape)
        np.add.at(found, (places, targets[near]), weights)
    result: Probabilities = found / found.sum(axis=1, keepdims=True)
    return result


def _predict(problem: LinearProblem, folds: Folds, decay: float) -> Probabilities:
    """Predict the held-out rows of each fold: (N, C)."""
    axes = problem.axes
    rows = axes.rows.float()
    found = np.zeros((len(rows), problem.num_classes))
    for rest, held in folds:
        targets = problem.targets[rest]
        objective = Objective(rows[rest], axes.variances, targets, problem.num_classes, decay / axes.scale**2)
        minimum = minimise(objective, tolerance=ROUGH, max_steps=ROUGH_STEPS)
        found[held] = softmax(minimum.logits(rows[held]))
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
    """Return the images that look like another class than their label, most doubtful first.

    They are those that the classifier puts in another class, and those that look confidently like another
    class (:func:`confident_joint`). The order is by how many times more probable the other class is than the
    label: on real images with swapped labels, this finds more of them than the difference does.

    Args:
        probabilities: (N, C), of images that the classifier did not see.
        targets: (N,), their labels.
    """
    each = np.arange(len(targets))
    others = probabilities.copy()
    others[each, targets] = -1.0
    looks = _looks_like(probabilities, targets)
    is_sure = (looks >= 0) & (looks != targets)
    best = np.where(is_sure, looks, others.argmax(1))
    own, other = probabilities[each, targets], probabilities[each, best]
    rows = np.flatnonzero(is_sure | (other > own))
    times = other[rows] / np.maximum(own[rows], np.finfo(np.float64).tiny)
    return [
        DoubtfulLabel(
            int(row),
            int(targets[row]),
            int(best[row]),
            float(own[row]),
            float(other[row]),
            bool(is_sure[row]),
        )
        for row in rows[np.argsort(-times, kind="stable")]
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
