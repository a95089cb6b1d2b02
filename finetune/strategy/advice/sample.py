"""Samples of the training images that classifiers can be cross-validated on, and the gain of a classifier."""

import math

import numpy as np
import numpy.typing as npt

from finetune.data.holdout.folds import count_per_class
from finetune.data.holdout.splits import split_stratified
from finetune.features.softmax import Targets
from finetune.strategy.probing.frozen_features import FeatureRows


def stratified_sample(targets: Targets, groups: Targets | None, number: int, seed: int) -> Targets:
    """Sample about ``number`` places, with the classes in proportion; classes of one image or group are left
    out.
    """
    places = repeated(targets, groups, np.arange(len(targets)))
    if len(places) <= number:
        return places
    return places[split_stratified(targets[places], number / len(places), seed)[1]]


def repeated(targets: Targets, groups: Targets | None, places: Targets) -> Targets:
    """Return those of ``places`` whose class occurs there in two or more images, or groups."""
    own = targets[places]
    counts = np.zeros(own.max(initial=0) + 1, dtype=np.int64)
    counts[np.unique(own)] = count_per_class(own, None if groups is None else groups[places])
    return places[counts[own] >= 2]


def learnable(rows: FeatureRows) -> tuple[FeatureRows, int]:
    """Keep the rows of classes with two or more images, or groups; renumber those classes from 0 and count
    them.
    """
    rows = rows.subset(repeated(rows.targets, rows.groups, np.arange(len(rows.targets))))
    classes, targets = np.unique(rows.targets, return_inverse=True)
    return rows._replace(targets=targets.reshape(-1).astype(np.int64)), len(classes)


def paired_gain(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return how much more often ``first`` is correct than ``second``, and the standard error of that."""
    gain = float(first.mean() - second.mean())
    return gain, math.sqrt(max(float((first != second).mean()) - gain**2, 0.0) / len(first))


def paired_balanced_gain(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], targets: Targets, groups: Targets | None
) -> tuple[float, float]:
    """Return the gain of ``first`` over ``second`` in balanced accuracy, and its standard error.

    The gain is the mean over the classes of the mean difference within a class. Images of one group are
    counted as one observation for the error.

    Args:
        first, second: (N,), whether each classifier is correct.
        targets: (N,), each class of 0..C-1 occurs twice or more.
        groups: (N,); None: each image is its own group.
    """
    difference = first.astype(np.float64) - second
    counts = np.bincount(targets)
    means = np.bincount(targets, difference) / counts
    own = counts[targets]
    # What each image moves the gain by.
    moves = (difference - means[targets]) / (len(counts) * np.sqrt(own * (own - 1)))
    if groups is not None:
        moves = np.bincount(np.unique(groups, return_inverse=True)[1].reshape(-1), moves)
    return float(means.mean()), math.sqrt(float((moves**2).sum()))
