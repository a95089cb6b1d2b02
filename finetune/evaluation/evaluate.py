"""A network and a split -> logits -> :class:`Evaluation`."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.dataset import Split
from finetune.errors import BadImageError, DataError
from finetune.evaluation.metrics import Metrics, classification_metrics
from finetune.evaluation.probabilities import in_digits, softmax
from finetune.image.preprocessing import Preprocessing
from finetune.model.layers.modes import preserve_modes


@dataclass(frozen=True)
class Collected:
    """What a network says about the images of a split, in the split's order.

    Attributes:
        logits: (N, C) float32.
        targets: (N,) true class indices.
        indices: (N,) places in the split.
        bad: images that could not be read; they are in none of the arrays.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    indices: NDArray[np.int64]
    bad: tuple[BadImageError, ...]


@dataclass(frozen=True)
class Evaluation:
    """A split's metrics, and the logits that they come from.

    ``split`` is train, val, test or all; ``precision`` what the network computed them in.
    """

    metrics: Metrics
    collected: Collected
    images: Split
    split: str
    precision: str = "fp32"

    def to_dict(self) -> dict[str, Any]:
        """One flat JSON object: the metrics, ``split``, ``precision``, and the images that were skipped,
        with reasons.
        """
        skipped = [{"path": error.name, "reason": error.reason} for error in self.collected.bad]
        about = {"split": self.split, "precision": self.precision, "skipped": skipped}
        return self.metrics.to_dict() | about

    def predictions(self) -> Iterator[list[Any]]:
        """A table, header first: path, label, predicted, correct, probability, and one column a class."""
        classes = self.metrics.classes
        yield ["path", "label", "predicted", "correct", "probability", *(f"prob_{name}" for name in classes)]
        found = self.collected
        for row, index in enumerate(found.indices):
            probabilities = softmax(found.logits[row : row + 1])[0]
            target, predicted = int(found.targets[row]), int(found.logits[row].argmax())
            yield [
                self.images.name(int(index)),
                classes[target],
                classes[predicted],
                int(target == predicted),
                in_digits(probabilities[predicted]),
                *map(in_digits, probabilities),
            ]


def collect_logits(
    module: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: AbstractContextManager[Any] | None = None,
) -> Collected:
    """Run ``module``, which must be on ``device``, in eval mode over ``batches``.

    Only logits are kept, so that memory does not grow with the images' size. Each module's own mode is put
    back afterwards: a network that is being trained has frozen parts in eval mode.

    Args:
        batches: images with their labels, as from :func:`finetune.data.batches.loaders.eval_batches`.
        autocast: entered for the forward passes; None computes in the weights' own type.

    Raises:
        DataError: there is no readable image.
    """
    logits, targets, indices = [], [], []
    bad: list[BadImageError] = []
    with preserve_modes(module), torch.inference_mode(), autocast or nullcontext():
        module.eval()
        for batch in batches:
            bad.extend(batch.bad)
            if not batch.indices:
                continue
            batch_logits = module(batch.images.to(device, non_blocking=True))
            logits.append(batch_logits.float().cpu().numpy())
            targets.append(batch.labels.numpy())
            indices.append(np.asarray(batch.indices, dtype=np.int64))
    if not logits:
        detail = f" ({len(bad)} could not be read, the first: {bad[0]})" if bad else ""
        raise DataError(f"there is no image to evaluate{detail}")
    return Collected(np.concatenate(logits), np.concatenate(targets), np.concatenate(indices), tuple(bad))


def evaluate_split(
    module: nn.Module,
    images: Split,
    split: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    precision: str = "fp32",
    autocast: AbstractContextManager[Any] | None = None,
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> Evaluation:
    """Evaluate ``module`` on ``images``, whose targets count in the order of ``classes``.

    Args:
        split: what the result is called: train, val, test or all.
        precision: what the result says of ``autocast``, the context of the forward passes.
        watch: passes the batches on and may show how far they are.

    Raises:
        BadImageError: an image cannot be read and ``on_bad_image`` is error.
        DataError: there is no readable image.
        FinetuneError: the network computes logits that are not finite.
    """
    batches = eval_batches(images, preprocessing, ReadOptions(batch_size, workers, on_bad_image))
    collected = collect_logits(module, watch(batches), device, autocast)
    metrics = classification_metrics(collected.logits, collected.targets, classes)
    return Evaluation(metrics, collected, images, split, precision)
