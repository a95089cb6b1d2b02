"""Report progress while batches pass."""

import math
from collections.abc import Callable, Iterable, Iterator

from finetune.data.batches.batch import Batch
from finetune.features.progress import OnStage
from finetune.training.trained import Trained

Watch = Callable[[Iterable[Batch]], Iterable[Batch]]


def watching(progress: OnStage, trained: Trained, images: int) -> Watch:
    """A ``watch`` for an evaluation of ``images`` images, which reports each batch that is done."""
    total = math.ceil(images / trained.recipe.train.images_per_batch)

    def watch(batches: Iterable[Batch]) -> Iterator[Batch]:
        for done, batch in enumerate(batches, 1):
            yield batch
            progress("batch", done, max(done, total))

    return watch


def watches(progress: OnStage) -> Callable[[Trained, int], Watch]:
    """Makes the ``watch`` of each of several evaluations."""
    return lambda trained, images: watching(progress, trained, images)
