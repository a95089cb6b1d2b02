"""The logits of a run's val split, on which thresholds are chosen. The best checkpoint keeps them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.checkpoint.storage import VAL, read_tensors
from finetune.data.batches.batch import Batch
from finetune.errors import CheckpointError, UserError, printable
from finetune.evaluation.evaluate import Collected
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.trained import Trained, collect_trained


@dataclass(frozen=True)
class ValLogits:
    """The logits of N images of val, as the network computes them, without the temperature.

    Attributes:
        logits: (N, C) float32.
        targets: (N,) true class indices.
        groups: (N,) the group of each image; None if images have no groups.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, collected: Collected) -> "ValLogits":
        return cls(collected.logits, collected.targets, collected.groups)

    def tensors(self) -> Mapping[str, Tensor]:
        """As the tensors of a file; :func:`val_logits` reads them."""
        found = {"logits": torch.from_numpy(self.logits), "targets": torch.from_numpy(self.targets)}
        return found if self.groups is None else found | {"groups": torch.from_numpy(self.groups)}


def val_logits(trained: Trained, watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter) -> ValLogits:
    """Return the logits of the run's val split: those that its checkpoint keeps, or else computed now.

    Args:
        watch: wraps the batches, for example to show progress.

    Raises:
        DataError: the checkpoint keeps none, and the images are not found.
        UserError: the checkpoint keeps none, and its network was trained on val (``train.refit``).
        CheckpointError: the file in the checkpoint is damaged.
    """
    kept = trained.folder / VAL
    if kept.is_file():
        return _read(kept, len(trained.card.classes))
    if trained.recipe.train.refit:
        raise UserError(
            f"{printable(trained.run)}: checkpoint '{trained.checkpoint}' was trained on val, too "
            "(train.refit), so nothing can be chosen on val. Take checkpoint 'best' of a finished run."
        )
    images = images_to_evaluate(trained, "val").images
    return ValLogits.of(collect_trained(trained, images, watch=watch))


def _read(path: Path, num_classes: int) -> ValLogits:
    tensors = read_tensors(path)
    logits, targets, groups = (tensors.get(name) for name in ("logits", "targets", "groups"))
    if logits is None or targets is None or logits.shape != (len(targets), num_classes):
        raise CheckpointError(f"{printable(path)}: does not hold the logits of val.")
    return ValLogits(logits.numpy(), targets.numpy(), None if groups is None else groups.numpy())
