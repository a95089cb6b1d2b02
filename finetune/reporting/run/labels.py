"""What the features of a run's images say: which labels are doubtful, which training images are nearest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from finetune.data.dataset import Split, merge_splits
from finetune.data.holdout.sample import sample
from finetune.errors import FinetuneError
from finetune.explain.features.nearest import nearest
from finetune.explain.features.run_labels import doubtful_labels_of_run
from finetune.explain.features.split_features import SplitFeatures, features_of_images
from finetune.features.progress import OnStage
from finetune.reporting.limits import NEAREST, SAMPLE, SAMPLE_OF_TRAIN
from finetune.reporting.run.images import RunImages
from finetune.reporting.watch import watching
from finetune.strategy.doctor.labels import DoubtfulLabel
from finetune.training.trained import Trained


@dataclass(frozen=True)
class ExaminedImages:
    """The images of a run whose features were computed: all, or a sample of a large run.

    Attributes:
        images: these images.
        splits: the split of each.
        features: of those that can be read.
    """

    images: Split
    splits: tuple[str, ...]
    features: SplitFeatures


@dataclass(frozen=True)
class Doubts:
    """Labels that may be wrong, the most doubtful first: ``index`` is a place among those examined.

    ``failure`` says why there is no list; None: there is one.
    """

    found: tuple[DoubtfulLabel, ...]
    failure: str | None = None


# The places of the training images nearest to an image, among those examined, with their similarities.
Nearest = list[tuple[int, float]]


def examine_images(trained: Trained, images: RunImages, progress: OnStage) -> ExaminedImages | str:
    """Compute the features of a run's images, or of a sample; or say why it cannot be done."""
    whole = merge_splits(images.source)
    splits = np.repeat([*images.source.splits], [len(split) for split in images.source.splits.values()])
    if images.is_large:
        places = np.concatenate(
            [
                np.flatnonzero(splits == name)[sample(split.targets, _most(name), trained.recipe.seed)]
                for name, split in images.source.splits.items()
            ]
        )
        whole, splits = whole.subset(places), splits[places]
    try:
        features = features_of_images(trained, whole, watch=watching(progress, trained, len(whole)))
    except FinetuneError as error:
        return str(error)
    return ExaminedImages(whole, tuple(map(str, splits)), features)


def _most(split: str) -> int:
    return SAMPLE_OF_TRAIN if split == "train" else SAMPLE


def find_doubts(trained: Trained, examined: ExaminedImages, progress: OnStage) -> Doubts:
    """Find the labels that may be wrong."""
    try:
        found = doubtful_labels_of_run(
            trained,
            examined.images,
            partial(progress, "image"),
            watching(progress, trained, len(examined.images)),
        )
    except FinetuneError as error:
        return Doubts((), str(error))
    return Doubts(tuple(found))


def find_nearest(
    trained: Trained, examined: ExaminedImages, images: Split, rows: Sequence[int]
) -> dict[int, Nearest]:
    """Find the training images nearest to some images.

    Args:
        images: these images.
        rows: what each is called in the result.
    """
    features = examined.features
    train = np.flatnonzero([examined.splits[index] == "train" for index in features.indices])
    if not len(train) or not len(images):
        return {}
    queries = features_of_images(trained, images)
    # One more: an image of train is its own nearest.
    places, similar = nearest(queries.features, features.features[train], NEAREST + 1)
    found = {}
    for at, index in enumerate(queries.indices):
        own = images.name(int(index))
        pairs = [
            (int(features.indices[train[place]]), float(how))
            for place, how in zip(places[at], similar[at], strict=True)
        ]
        found[rows[int(index)]] = [pair for pair in pairs if examined.images.name(pair[0]) != own][:NEAREST]
    return found
