"""Folds for cross-validation and for choosing settings within training images."""

import dataclasses
import warnings

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import Source, merge_splits
from finetune.data.keys import key
from finetune.errors import DataError, printable

Places = npt.NDArray[np.int64]
# For each fold: the indices of the remaining images, and of those held out.
Folds = list[tuple[Places, Places]]
FOLDS = 3
# Attempts to assign groups to folds so that every class is in the rest of every fold.
ATTEMPTS = 20


def fold_source(source: Source, number: int, of: int, seed: int) -> Source:
    """``source`` with fold ``number`` (counted from 0) of ``of`` as test and the other folds as train.

    The folds cover all images except a test split of the source, which takes no part in cross-validation.
    Classes are spread evenly over the folds (stratified), and groups stay together. The same images, number
    of folds and seed give the same folds.

    Raises:
        DataError: there are too few images or groups for ``of`` folds.
    """
    # Imported here because most recipes have no folds.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    own = {name: split for name, split in source.splits.items() if name != "test"}
    whole = merge_splits(dataclasses.replace(source, splits=own))
    counts = whole.class_counts(len(source.classes))
    groups = len(whole) if whole.groups is None else len(np.unique(whole.groups))
    if of > groups or of > counts.max():
        unit = "images" if whole.groups is None else "groups"
        raise DataError(
            f"{printable(source.name)}: {of} folds are too many for {groups} {unit} "
            f"and {counts.max()} images of the largest class. Use fewer folds."
        )
    kind = StratifiedKFold if whole.groups is None else StratifiedGroupKFold
    folds = kind(of, shuffle=True, random_state=key(seed, "folds") % 2**32)
    with warnings.catch_warnings():
        # A class with fewer images than folds is missing from some folds.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        sides = list(folds.split(np.zeros(len(whole)), whole.targets, whole.groups))
    rest, held = (np.sort(side) for side in sides[number])
    if not len(held):
        raise DataError(f"{printable(source.name)}: fold {number} of {of} has no group. Use fewer folds.")
    notes = [*source.notes, f"test: fold {number} of {of}, {len(held)} images (seed {seed})"]
    if "test" in source.splits:
        notes.append("the test split of the source is not part of the folds")
    splits = {"train": whole.subset(rest), "test": whole.subset(held)}
    return dataclasses.replace(source, splits=splits, notes=tuple(notes))


def inner_folds(targets: Places, seed: int, groups: Places | None = None, most: int = FOLDS) -> Folds:
    """Folds of training images, to choose settings by cross-validation.

    Each class is among the remaining images of every fold, so that a classifier can learn it. Groups stay
    together. There are ``most`` folds, or fewer if a class has fewer images or groups; none if a class has
    only one.

    Args:
        targets: (N,), the class of each image.
        groups: (N,), the group of each image; None: each image is its own group.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = min(most, int(count_per_class(targets, groups).min()))
    if groups is None:
        if count < 2:
            return []
        return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(targets, targets))
    classes = len(np.unique(targets))
    for folds in range(count, 1, -1):
        for attempt in range(ATTEMPTS):
            kind = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed + attempt) % 2**32)
            found = list(kind.split(targets, targets, groups))
            if all(len(held) and len(np.unique(targets[rest])) == classes for rest, held in found):
                return found
    return []


def count_per_class(targets: Places, groups: Places | None = None) -> Places:
    """The number of images, or of groups, of each class that occurs, in class order."""
    pairs = targets if groups is None else np.unique(np.stack([targets, groups], axis=1), axis=0)[:, 0]
    return np.unique(pairs, return_counts=True)[1].astype(np.int64)
