"""Doubtful labels by a cross-validation: each image is judged by the network that did not see it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data.same_content import same_content
from finetune.decision.probabilities import softmax
from finetune.errors import DataError
from finetune.strategy.doctor.doubts import DoubtfulLabels
from finetune.strategy.doctor.labels import doubtful_labels
from finetune.strategy.experiments.compare import WatchOf, unwatched
from finetune.strategy.experiments.crossval import CrossValidation, evaluate_folds
from finetune.training.run.own_data import RecordedData
from finetune.training.trained import load_trained


@dataclass(frozen=True)
class FoldLabels:
    """The doubtful labels, among how many images per class, and remarks for the user."""

    doubts: DoubtfulLabels
    counts: dict[str, int]
    notes: tuple[str, ...]


def doubtful_labels_of_folds(
    places: Sequence[Path], device: torch.device, *, watch_of: WatchOf = unwatched
) -> FoldLabels:
    """Find images whose network, which did not see them, sees them in another class than their label.

    Images with a copy in another fold are left out: their network has seen the copy, with its label.

    Args:
        places: the run of each fold.

    Raises:
        RunDirError, CheckpointError: a run is missing or damaged.
        DataError: the images are not found, or none is without a copy in another fold.
    """
    found = evaluate_folds(places, device, watch_of=watch_of)
    collected, images = found.pooled.collected, found.pooled.images
    kept = _judged_fairly(found)
    if not kept.any():
        raise DataError("every image has a copy in another fold, whose network has seen it")
    rows, classes = collected.indices[kept], found.card.classes
    targets = collected.targets[kept]
    doubts = [
        dataclasses.replace(each, index=int(rows[each.index]))
        for each in doubtful_labels(softmax(collected.calibrated[kept]), targets)
    ]
    trained = load_trained(places[0], "best", device)
    recorded = RecordedData.read(trained.run, trained.recipe.data, classes)
    own = None if recorded is None else recorded.find(verify=())
    notes = [f"labels: by the networks of {len(places)} folds, each on the images that it did not see"]
    if left := int((~kept).sum()):
        notes.append(f"{left:,} images have a copy in another fold and were left out")
    if collected.bad:
        notes.append(f"{len(collected.bad):,} images cannot be read and were left out")
    counts = np.bincount(targets, minlength=len(classes)).tolist()
    return FoldLabels(
        DoubtfulLabels(
            images,
            classes,
            tuple(doubts),
            None if own is None else own.source.root,
            trained.recipe.data.source if own is None else own.place,
            found.card.preprocessing.bands,
        ),
        dict(zip(classes, counts, strict=True)),
        tuple(notes),
    )


def _judged_fairly(found: CrossValidation) -> NDArray[np.bool_]:
    """Whether each evaluated image has no copy in another fold: (N,)."""
    collected = found.pooled.collected
    owners = np.repeat(np.arange(len(found.folds)), [len(each.images) for each in found.folds])
    folds = owners[collected.indices]
    copies = same_content(found.pooled.images, collected.indices)
    pairs = np.unique(np.stack([copies, folds], axis=1), axis=0)[:, 0]
    contents, in_folds = np.unique(pairs, return_counts=True)
    return np.isin(copies, contents[in_folds == 1])
