"""The training images that are most like some images, in the eyes of a trained network."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.batches.batch import Batch
from finetune.data.dataset import Split
from finetune.data.holdout.sample import sample
from finetune.data.images import FileImages
from finetune.decision.probabilities import softmax
from finetune.errors import BadImageError
from finetune.explain.features.nearest import nearest
from finetune.explain.features.split_features import SplitFeatures, features_of_images
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.trained import Trained

log = logging.getLogger("finetune")

NEAREST = 6
# Of a larger train split, a sample is searched.
MOST_TRAIN = 5_000

Watch = Callable[[Iterable[Batch]], Iterable[Batch]]


@dataclass(frozen=True)
class NearestImages:
    """Images, and the training images nearest to each.

    Attributes:
        classes: class names, in the order of targets and logits.
        queries: the images. They have no labels; their targets are zeros.
        pool: the training images that were searched.
        places: (Q, k), rows of ``pool``, the nearest first.
        similarities: (Q, k), cosine similarities of the penultimate features, -1 to 1.
        train: the number of training images, of which ``pool`` may be a sample.
        bands: as images are read; see :meth:`Split.image`.
    """

    classes: tuple[str, ...]
    queries: SplitFeatures
    pool: SplitFeatures
    places: NDArray[np.int64]
    similarities: NDArray[np.float64]
    train: int
    bands: int | None = None

    @property
    def bad(self) -> tuple[BadImageError, ...]:
        """The images that could not be read."""
        return self.queries.collected.bad

    def rows(self) -> list[dict[str, Any]]:
        """JSON-ready: per image its path, predicted class, probability, and its nearest training images."""
        probabilities = softmax(self.queries.calibrated)
        names, pool = self.queries.names, self.pool.names
        return [
            {
                "path": names[row],
                "class": self.classes[predicted],
                "probability": float(probabilities[row, predicted]),
                "nearest": [
                    {
                        "path": pool[place],
                        "class": self.classes[self.pool.targets[place]],
                        "similarity": float(similarity),
                    }
                    for place, similarity in zip(self.places[row], self.similarities[row], strict=True)
                ],
            }
            for row, predicted in enumerate(self.queries.predicted.tolist())
        ]


def nearest_images(
    trained: Trained, paths: Sequence[str], k: int = NEAREST, watch: Watch = iter
) -> NearestImages:
    """Find the ``k`` training images most like each of the images at ``paths``.

    Of a run with more than 5,000 training images, a sample of that size is searched: stratified by class, and
    drawn with the run's seed.

    Args:
        watch: wraps the batches of both passes, for example to show progress.

    Raises:
        DataError: no image can be read, or the training images are not found.
    """
    # One image that cannot be read does not end the search for the others.
    data = trained.recipe.data.model_copy(update={"on_bad_image": "skip"})
    lenient = dataclasses.replace(trained, recipe=trained.recipe.model_copy(update={"data": data}))
    given = Split(FileImages(paths), np.zeros(len(paths), np.int64))
    queries = features_of_images(lenient, given, watch=watch)
    own = images_to_evaluate(trained, "train")
    for warning in own.warnings:
        log.warning("%s", warning)
    chosen = sample(own.images.targets, MOST_TRAIN, trained.recipe.seed)
    pool = features_of_images(trained, own.images.subset(chosen), watch=watch)
    places, similarities = nearest(queries.features, pool.features, k)
    bands = trained.card.preprocessing.bands
    return NearestImages(trained.card.classes, queries, pool, places, similarities, len(own.images), bands)
