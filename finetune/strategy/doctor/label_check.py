"""Check the labels of a source with the frozen features of a source network."""

import dataclasses

import numpy as np

from finetune.data.dataset import Source, Split, merge_splits
from finetune.data.same_content import same_content
from finetune.errors import UserError
from finetune.features.cut import CutError
from finetune.features.depths import DepthExtractor
from finetune.features.extract import Extractor
from finetune.features.joint import MirroredDepths
from finetune.features.progress import OnProgress, no_progress
from finetune.recipe.schema import Recipe
from finetune.strategy.doctor.doubts import DoubtfulLabels
from finetune.strategy.doctor.labels import DoubtfulLabel, doubtful_labels, out_of_fold
from finetune.strategy.probing.frozen_features import (
    FeatureRows,
    features_of,
    frozen_compute,
    frozen_recipe,
    read_features,
)
from finetune.training.caching.feature_store import describe_features
from finetune.training.compute.in_force import in_force
from finetune.training.run.own_data import read_undivided
from finetune.training.setup.prepare import Setup, prepare


def check_labels(
    recipe: Recipe, device: str | None = None, progress: OnProgress = no_progress
) -> DoubtfulLabels:
    """Find images that look like another class than their label, the most doubtful first.

    All splits are looked at together. Features come from the network of ``recipe`` as it is before
    fine-tuning, which has not seen the labels, and are cached as the recipe's ``cache`` says. Raises as
    :func:`doubtful_labels_by`.
    """
    source = read_undivided(recipe.data)
    whole = merge_splits(source)
    found = doubtful_labels_by(recipe, whole, source.classes, device, progress)
    return DoubtfulLabels(whole, source.classes, tuple(found), source.root, recipe.data.source)


def doubtful_labels_by(
    recipe: Recipe,
    images: Split,
    classes: tuple[str, ...],
    device: str | None = None,
    progress: OnProgress = no_progress,
) -> list[DoubtfulLabel]:
    """Find doubtful labels by the frozen features of a source network, which has not seen the labels.

    Images of a group, or else copies of one file, are predicted without each other.

    Args:
        recipe: names the network and its preprocessing, and says where features are cached.
        images: targets are indices into ``classes``. Images that cannot be read are left out.
        progress: called with the number of images that went through the network, and their total. Images
            whose features are cached do not count.

    Returns:
        Labels whose ``index`` is a place in ``images``, the most doubtful first.

    Raises:
        DataError: fewer than two classes have two or more readable images, or groups.
        UserError, WeightsError: the network or its weights cannot be used.
    """
    rows = source_features(recipe, images, classes, device, progress)
    assert rows.places is not None
    probabilities = out_of_fold(rows.features, rows.targets, len(classes), recipe.seed, rows.groups)
    return [
        dataclasses.replace(each, index=int(rows.places[each.index]))
        for each in doubtful_labels(probabilities, rows.targets)
    ]


# The depths whose features are taken, as shares of the layers. Features of several depths find more wrong
# labels than the last ones alone. Chosen on the sets of docs/measured/labels.md.
DEPTHS = (1 / 2, 2 / 3, 5 / 6, 1)


def source_features(
    recipe: Recipe,
    images: Split,
    classes: tuple[str, ...],
    device: str | None = None,
    progress: OnProgress = no_progress,
) -> FeatureRows:
    """Compute the features of the readable images, with their groups; else with copies of a file as groups.

    They are those of :data:`DEPTHS` beside each other, the mean of each image and its mirror image. Where the
    network cannot be cut there, they are those after its last layer.

    Arguments and errors as for :func:`doubtful_labels_by`.
    """
    data = recipe.data.model_copy(update={"on_bad_image": "skip"})
    frozen = frozen_recipe(recipe.model_copy(update={"data": data}), None)
    compute = frozen_compute(recipe, device)
    with in_force(compute):
        joined = Source(recipe.data.source, classes, {"train": images})
        rows = _features(prepare(frozen, joined, compute), progress)
    if rows.groups is None and rows.places is not None:
        # A copy of an image must not vouch for its label.
        copies = same_content(images, rows.places)
        rows = rows._replace(groups=copies if len(np.unique(copies)) < len(copies) else None)
    return rows


def _features(setup: Setup, progress: OnProgress) -> FeatureRows:
    network, preprocessing = setup.network, setup.card.preprocessing
    body = len(network.table.body)
    layers = sorted({max(1, round(share * body)) for share in DEPTHS})
    size, channels = preprocessing.image_size, preprocessing.channels
    try:
        depths = DepthExtractor(network.module.eval(), network.table, layers, size, channels, folded=True)
    except (CutError, UserError):
        return features_of(setup, "train", progress)
    extract = Extractor(
        MirroredDepths(depths),
        (channels, size, size),
        setup.compute.device,
        setup.compute.exact,
        setup.recipe.train.images_per_batch,
    )
    about = describe_features(setup, body, plain=True) | {"depths": layers, "mirrored": True}
    return read_features(setup, "train", extract, about, progress)
