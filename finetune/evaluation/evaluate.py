"""Evaluate a network: run it over batches of images, and compute metrics from its logits."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.data.batches.batch import Batch
from finetune.data.dataset import Split
from finetune.decision.calibration import Calibration
from finetune.decision.probabilities import in_digits, softmax
from finetune.errors import BadImageError, DataError
from finetune.evaluation.calibration_check import CalibrationCheck, check_calibration
from finetune.evaluation.intervals import Intervals, measure_intervals
from finetune.evaluation.metrics import Metrics, classification_metrics
from finetune.model.layers.modes import preserve_modes

NOT_CALIBRATED = Calibration()


@dataclass(frozen=True)
class Collected:
    """A network's logits for the images of a split, in the order of the split.

    Attributes:
        logits: (N, C) float32, as the network computes them.
        targets: (N,) true class indices.
        indices: (N,) places in the split.
        bad: images that could not be read; they are in none of the arrays.
        calibration: of the network; None if the logits are the calibrated ones of several networks.
        groups: (N,) the group of each image; None if images have no groups.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    indices: NDArray[np.int64]
    bad: tuple[BadImageError, ...]
    calibration: Calibration | None = NOT_CALIBRATED
    groups: NDArray[np.int64] | None = None

    @property
    def calibrated(self) -> NDArray[np.float32]:
        """(N, C) the logits divided by the temperature: what probabilities come from."""
        return self.logits if self.calibration is None else self.calibration.of(self.logits)

    def metrics(self, classes: Sequence[str]) -> Metrics:
        """Compute the metrics of the calibrated probabilities.

        Raises as :func:`~finetune.evaluation.metrics.classification_metrics`.
        """
        return classification_metrics(self.calibrated, self.targets, classes, self.groups)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a network on the split ``images``, and the logits that they were computed from.

    ``split`` is the name of the split: ``train``, ``val``, ``test``, or ``all`` for data without splits.
    ``precision`` is that of the forward passes.
    """

    metrics: Metrics
    collected: Collected
    images: Split
    split: str
    precision: str = "fp32"

    @cached_property
    def intervals(self) -> Intervals:
        """The intervals of other metrics than top-1. They take a moment, so they wait until asked for."""
        return measure_intervals(self.collected.calibrated, self.collected.targets, self.collected.groups)

    @cached_property
    def calibration(self) -> CalibrationCheck:
        """The calibration error with its interval, before and after the temperature."""
        found = self.collected
        return check_calibration(found.logits, found.targets, found.calibration, found.groups)

    def to_dict(self) -> dict[str, Any]:
        """One JSON object: the metrics, ``calibration``, ``split``, ``precision``, and the ``skipped``
        images.

        Metrics and classes have their interval in ``NAME_low`` and ``NAME_high``, where there is one.
        """
        skipped = [{"path": error.name, "reason": error.reason} for error in self.collected.bad]
        found = self.metrics.to_dict()
        for name, interval in self.intervals.metrics.items():
            found |= _ends(name, interval)
        found |= self.calibration.after.entries("ece")
        found["calibration"] = self.calibration.to_dict()
        for place, entry in enumerate(found["per_class"]):
            entry |= _ends("recall", self.intervals.recall[place])
            entry |= _ends("precision", self.intervals.precision[place])
        return found | {"split": self.split, "precision": self.precision, "skipped": skipped}

    def predictions(self) -> Iterator[list[Any]]:
        """Yield the rows of a table, header first: path, label, predicted, correct, probability, and one
        column per class."""
        classes = self.metrics.classes
        yield ["path", "label", "predicted", "correct", "probability", *(f"prob_{name}" for name in classes)]
        found, logits = self.collected, self.collected.calibrated
        for row, index in enumerate(found.indices):
            probabilities = softmax(logits[row : row + 1])[0]
            target, predicted = int(found.targets[row]), int(found.logits[row].argmax())
            yield [
                self.images.name(int(index)),
                classes[target],
                classes[predicted],
                int(target == predicted),
                in_digits(probabilities[predicted]),
                *map(in_digits, probabilities),
            ]


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, float]:
    return {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def collect_logits(
    module: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: AbstractContextManager[Any] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Collected:
    """Run ``module``, which must be on ``device``, in eval mode over ``batches``.

    Only the logits stay in memory, not the images. Afterwards every submodule is in the mode that it was in
    before: a network in training has frozen parts in eval mode.

    Args:
        batches: images with labels, as from :func:`finetune.data.batches.loaders.eval_batches`.
        autocast: the context of the forward passes; None computes in the type of the weights.
        groups: of the split's images, by their places; None if images have no groups.

    Raises:
        DataError: there are no readable images.
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
        raise DataError(f"there are no images to evaluate{detail}")
    places = np.concatenate(indices)
    return Collected(
        np.concatenate(logits),
        np.concatenate(targets),
        places,
        tuple(bad),
        groups=None if groups is None else groups[places],
    )
