"""Doubtful labels of a run's images."""

import dataclasses
import logging
from collections.abc import Callable, Iterable

from finetune.data.batches.batch import Batch
from finetune.data.dataset import Split
from finetune.errors import DataError, FinetuneError
from finetune.explain.features.split_features import features_of_images
from finetune.features.progress import OnProgress, no_progress
from finetune.strategy.doctor.label_check import doubtful_labels_by
from finetune.strategy.doctor.labels import DoubtfulLabel, doubtful_labels, out_of_fold
from finetune.training.trained import Trained

log = logging.getLogger("finetune")


def doubtful_labels_of_run(
    trained: Trained,
    images: Split,
    progress: OnProgress = no_progress,
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> list[DoubtfulLabel]:
    """Find images that look like another class than their label, the most doubtful first.

    A linear head predicts each image without its label, on the features of the run's source network before
    fine-tuning, at the image size of its weights. It has not seen the labels, and finds more wrong ones than
    the trained network (docs/explain.md). Where there are no source weights, or they cannot be loaded any
    more, the features of the trained network take their place.

    Args:
        images: of all splits of the run together, or a sample of them, with targets in the order of the
            network's classes. Images that cannot be read are left out.
        progress: called with the number of images that went through the source network, and their total.
            Images whose features are cached do not count.
        watch: wraps the batches of the trained network, if it is asked.

    Returns:
        Labels whose ``index`` is a place in ``images``.

    Raises:
        DataError: fewer than two classes have two or more readable images, or groups.
    """
    recipe, classes = trained.recipe, trained.card.classes
    if recipe.model.weights != "none":
        data = recipe.data.model_copy(update={"image_size": "auto", "resize": "auto"})
        at_own_size = recipe.model_copy(update={"data": data})
        try:
            return doubtful_labels_by(at_own_size, images, classes, str(trained.device), progress)
        except DataError:
            # The images are to blame, for any network.
            raise
        except FinetuneError as error:
            log.info("doubtful labels: by the trained network, because the source network fails (%s)", error)
    found = features_of_images(trained, images, watch=watch)
    probabilities = out_of_fold(found.features, found.targets, len(classes), recipe.seed, found.groups)
    return [
        dataclasses.replace(each, index=int(found.indices[each.index]))
        for each in doubtful_labels(probabilities, found.targets)
    ]
