"""The features of a split: logits and penultimate features of a trained network, from one pass."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.batches.batch import Batch
from finetune.data.dataset import Split
from finetune.errors import FinetuneError, printable
from finetune.evaluation.evaluate import Collected
from finetune.features.last_layer import tap_last_layer
from finetune.training.compute.precision import InferencePrecision, place
from finetune.training.movement import start_network
from finetune.training.trained import Trained, collect_trained

Features = NDArray[np.float32]


@dataclass(frozen=True)
class SplitFeatures:
    """The features of the readable images of a split, in the order of the split.

    Attributes:
        images: the split.
        collected: logits (N, C), targets (N,), indices (N,) in the split, and the images that could not be
            read. The same numbers as in an evaluation.
        features: (N, D) float32: the input of the last layer of the head; a map is averaged over its places.
    """

    images: Split
    collected: Collected
    features: Features

    def __len__(self) -> int:
        return len(self.features)

    @property
    def logits(self) -> NDArray[np.float32]:
        """(N, C)."""
        return self.collected.logits

    @property
    def calibrated(self) -> NDArray[np.float32]:
        """(N, C), the logits divided by the temperature of the network."""
        return self.collected.calibrated

    @property
    def targets(self) -> NDArray[np.int64]:
        """(N,), in the order of the network's classes."""
        return self.collected.targets

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,), the class with the largest logit; of equals, the first."""
        classes: NDArray[np.int64] = self.collected.logits.argmax(1).astype(np.int64)
        return classes

    @property
    def indices(self) -> NDArray[np.int64]:
        """(N,), the place of each row in ``images``."""
        return self.collected.indices

    @property
    def names(self) -> list[str]:
        """N names: paths, where the images have one."""
        return [self.images.name(int(index)) for index in self.indices]

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """(N,); None if the images have no groups."""
        return None if self.images.groups is None else self.images.groups[self.indices]


def features_of_images(
    trained: Trained,
    images: Split,
    *,
    batch_size: int | None = None,
    precision: InferencePrecision = "fp32",
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> SplitFeatures:
    """Run a trained network over ``images`` once. Only the result stays in memory.

    The logits are bit for bit those of :func:`finetune.training.trained.evaluate_trained` with the same
    arguments. Targets have to be in the order of the network's classes; without labels, pass zeros.

    Args:
        batch_size: None: the recipe's.
        watch: wraps the batches, for example to show progress.

    Raises:
        BadImageError: an image cannot be read and the recipe has ``on_bad_image: error``.
        DataError: there are no readable images.
        FinetuneError: a feature is infinite or not a number.
    """
    tapped = tap_last_layer(trained.module, trained.card.architecture)
    recorded = tapped.record()
    network = dataclasses.replace(trained, module=tapped.module)
    collected = collect_trained(network, images, batch_size=batch_size, precision=precision, watch=watch)
    rows = recorded.take()
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        name = images.name(int(collected.indices[np.flatnonzero(~finite)[0]]))
        raise FinetuneError(f"{printable(name)}: its features are infinite or not a number")
    return SplitFeatures(images, collected, rows)


def at_start(trained: Trained) -> Trained:
    """Return the run's network as it was before the first step: the source weights with a new head.

    Raises:
        RunDirError: the source weights cannot be loaded, or have changed.
    """
    module = start_network(trained).module.eval()
    place(module, trained.device)
    return dataclasses.replace(trained, module=module)
