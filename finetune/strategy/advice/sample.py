"""Some of the training images: what advice looks at where looking at all would take long."""

import numpy as np

from finetune.data.holdout.folds import count_per_class
from finetune.data.holdout.splits import split_stratified
from finetune.features.softmax import Targets


def some_of(targets: Targets, groups: Targets | None, number: int, seed: int) -> Targets:
    """About ``number`` places, each class with its share, or all; none of a class of one image or group."""
    places = twice_or_more(targets, groups, np.arange(len(targets)))
    if len(places) <= number:
        return places
    return places[split_stratified(targets[places], number / len(places), seed)[1]]


def twice_or_more(targets: Targets, groups: Targets | None, places: Targets) -> Targets:
    """Those of ``places`` whose class is there at least twice, in images or in groups."""
    own = targets[places]
    counts = np.zeros(own.max(initial=0) + 1, dtype=np.int64)
    counts[np.unique(own)] = count_per_class(own, None if groups is None else groups[places])
    return places[counts[own] >= 2]
