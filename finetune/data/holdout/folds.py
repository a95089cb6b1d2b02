"""The folds of a cross-validation."""

import dataclasses
import warnings

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import Source, merge_splits
from finetune.data.keys import key
from finetune.errors import DataError, printable


def folded(source: Source, number: int, of: int, seed: int) -> Source:
    """``source`` with fold ``number`` (from 0) of ``of`` as test, and all the others as train.

    The folds are made of all images but those of a test split of the source's own, which is left out of
    the whole cross-validation. Every class is spread evenly over the folds; where images have groups, none
    is divided. The same images, number of folds and seed give the same folds.

    Raises:
        DataError: a class or the groups are too few for so many folds.
    """
    # Late: most recipes have no folds.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    own = {name: split for name, split in source.splits.items() if name != "test"}
    whole = merge_splits(dataclasses.replace(source, splits=own))
    counts = whole.class_counts(len(source.classes))
    groups = len(whole) if whole.groups is None else len(np.unique(whole.groups))
    if of > groups or of > counts.max():
        what = "images" if whole.groups is None else "groups"
        raise DataError(
            f"{printable(source.name)}: {of} folds are too many for {groups} {what} and {counts.max()} "
            "images of the "
            "largest class"
        )
    kind = StratifiedKFold if whole.groups is None else StratifiedGroupKFold
    folds = kind(of, shuffle=True, random_state=key(seed, "folds") % 2**32)
    with warnings.catch_warnings():
        # Of a class with fewer images than folds; some folds then have none of it.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        sides = list(folds.split(np.zeros(len(whole)), whole.targets, whole.groups))
    rest, held = (np.sort(side) for side in sides[number])
    if not len(held):
        raise DataError(
            f"{printable(source.name)}: of {of} folds, fold {number} has no group; take fewer folds"
        )
    notes = [*source.notes, f"test: fold {number} of {of}, {len(held)} images (seed {seed})"]
    if "test" in source.splits:
        notes.append("the source's own test split is left out of the folds")
    splits = {"train": whole.subset(rest), "test": whole.subset(held)}
    return dataclasses.replace(source, splits=splits, notes=tuple(notes))


Places = npt.NDArray[np.int64]
# For each fold, the rest and what is held.
Folds = list[tuple[Places, Places]]
FOLDS = 3
# Groups are put together at random; so many times, until every class is on both sides of every fold.
TRIES = 20


def inner_folds(targets: Places, seed: int, groups: Places | None = None, most: int = FOLDS) -> Folds:
    """Folds of training images, to choose something by or to judge it.

    Every class of ``targets`` is in the rest of every fold, so that a classifier can learn it, and no group
    is divided. There are at most ``most`` folds, and fewer where a class has fewer images, or groups; none
    where a class has only one.

    Args:
        targets: (N,), the class of each image.
        groups: (N,), which group each belongs to; None: each to its own.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = min(most, int(count_per_class(targets, groups).min()))
    if groups is None:
        if count < 2:
            return []
        return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(targets, targets))
    classes = len(np.unique(targets))
    for folds in range(count, 1, -1):
        for attempt in range(TRIES):
            kind = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed + attempt) % 2**32)
            found = list(kind.split(targets, targets, groups))
            if all(len(held) and len(np.unique(targets[rest])) == classes for rest, held in found):
                return found
    return []


def count_per_class(targets: Places, groups: Places | None = None) -> Places:
    """Of each class that there is, in order, how many images, or groups, it has."""
    pairs = targets if groups is None else np.unique(np.stack([targets, groups], axis=1), axis=0)[:, 0]
    return np.unique(pairs, return_counts=True)[1].astype(np.int64)
