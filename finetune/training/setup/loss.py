"""Build the loss that a recipe asks for, with what it says about classes of uneven size."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from finetune.data.dataset import Split
from finetune.errors import RecipeError, printable, require_known
from finetune.recipe.catalog import suggest
from finetune.recipe.schema import TrainSection
from finetune.training.steps.losses import FocalLoss, LogitAdjustedLoss

# Classes are uneven if the largest has this many times the training images of the smallest. Below it, no
# correction gains more than half a point of balanced accuracy (docs/measured/imbalance.md).
UNEVEN = 1.5
# Names of classes that a message shows.
SHOWN = 10

PerClass = npt.NDArray[np.float64]


def loss_function(train: TrainSection, split: Split, classes: Sequence[str]) -> nn.CrossEntropyLoss:
    """Build the loss of ``train`` for the training images ``split``.

    Its ``weight`` has a mean of 1 over the images, so only the ratios of ``class_weights`` matter.

    Raises:
        RecipeError: ``class_weights`` names classes that the data does not have; lists all of them.
    """
    require_known("loss", train.loss, ("cross_entropy", "focal"))
    # A class of which no image is left gets the weight of a class with one.
    counts = np.maximum(split.class_counts(len(classes)), 1).astype(np.float64)
    weights = _class_weights(train.class_weights, counts, classes)
    weight = None if weights is None else torch.from_numpy(weights).float()
    if train.logit_adjust:
        offsets = torch.from_numpy(logit_offsets(counts, train.logit_adjust)).float()
        return LogitAdjustedLoss(offsets, weight, train.label_smoothing)
    if train.loss == "focal" and train.focal_gamma:
        return FocalLoss(train.focal_gamma, weight, train.label_smoothing)
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=train.label_smoothing)


def is_uneven(counts: npt.NDArray[np.integer]) -> bool:
    """Whether classes with these numbers of images (C,) are uneven."""
    return bool(counts.max() >= UNEVEN * max(counts.min(), 1))


def corrects(train: TrainSection) -> bool:
    """Whether ``train`` has a setting for uneven classes."""
    weighted = train.class_weights != "none" or train.sampler == "balanced" or bool(train.logit_adjust)
    return weighted or train.loss == "focal" or train.select == "balanced_accuracy"


def logit_offsets(counts: npt.NDArray[np.integer] | PerClass, tau: float) -> PerClass:
    """Compute what logit adjustment adds to the logits: (C,), ``tau`` times the log of each class's share."""
    offsets: PerClass = tau * np.log(counts / counts.sum())
    return offsets


def balanced_weights(counts: npt.NDArray[np.integer] | PerClass) -> PerClass:
    """Compute weights (C,) that give every class the same sum: n / (C c) for c of n images."""
    weights: PerClass = counts.sum() / (len(counts) * counts)
    return weights


def _class_weights(
    wanted: str | Mapping[str, float], counts: PerClass, classes: Sequence[str]
) -> PerClass | None:
    if isinstance(wanted, Mapping):
        if unknown := [name for name in wanted if name not in classes]:
            raise RecipeError([_unknown_class(name, classes) for name in unknown])
        given = np.array([wanted.get(name, 1.0) for name in classes])
        weights: PerClass = given * (counts.sum() / (given * counts).sum())
        return weights
    require_known("class_weights", wanted, ("none", "balanced"))
    return None if wanted == "none" else balanced_weights(counts)


def _unknown_class(name: str, classes: Sequence[str]) -> str:
    known = ", ".join(map(printable, classes[:SHOWN])) + (", ..." if len(classes) > SHOWN else "")
    hint = suggest(name, classes) or f" Its classes: {known}."
    return f"train.class_weights: the data has no class '{printable(name)}'.{printable(hint)}"
