"""The 95 % intervals of an evaluation: of its metrics over classes, its calibration error, and each class."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import log_softmax
from finetune.evaluation.metrics import CHUNK, calibration_error
from finetune.evaluation.resampling import intervals, share_interval

Interval = tuple[float, float]
# In the order of the statistics that are resampled together.
RESAMPLED = ("balanced_accuracy", "macro_f1", "ece")
# Images that all draws take together, at most: fewer draws of very many images are as good.
MOST_DRAWN = 20_000_000
DRAWS = 1000
FEWEST_DRAWS = 200


@dataclass(frozen=True)
class Intervals:
    """The 95 % intervals of an evaluation, by groups where images have groups.

    Attributes:
        metrics: of the metrics of :data:`RESAMPLED`, by name; without those that have no width: too few
            images, or none that is wrong.
        recall: per class; None for a class without images.
        precision: per class; None for a class that was never predicted.
    """

    metrics: Mapping[str, Interval]
    recall: tuple[Interval | None, ...]
    precision: tuple[Interval | None, ...]


def measure_intervals(
    logits: NDArray[np.floating], targets: NDArray[np.integer], groups: NDArray[np.int64] | None = None
) -> Intervals:
    """Compute the intervals: of metrics by the bootstrap, of recall and precision in closed form.

    Args:
        logits: (N, C), those that probabilities come from.
        targets: (N,) true class indices.
        groups: (N,) the group of each image; None if images have no groups.
    """
    n, classes = logits.shape
    predicted = logits.argmax(axis=1)
    correct = predicted == targets
    confidence = _confidence(logits)

    def statistics(rows: NDArray[np.int64]) -> tuple[float, float, float]:
        right = correct[rows]
        truth = targets[rows]
        hits = np.bincount(truth[right], minlength=classes)
        support = np.bincount(truth, minlength=classes)
        guesses = np.bincount(predicted[rows], minlength=classes)
        there = support > 0
        recall = (hits[there] / support[there]).mean()
        f1 = (2 * hits[there] / (support[there] + guesses[there])).mean()
        return float(recall), float(f1), calibration_error(confidence[rows], right)

    draws = min(DRAWS, max(FEWEST_DRAWS, MOST_DRAWN // n))
    found = intervals(statistics, n, groups, draws=draws)
    return Intervals(
        {name: each for name, each in zip(RESAMPLED, found, strict=True) if _has_width(each)},
        _of_shares(targets, correct, groups, classes),
        _of_shares(predicted, correct, groups, classes),
    )


def _of_shares(
    labels: NDArray[np.integer], correct: NDArray[np.bool_], groups: NDArray[np.int64] | None, classes: int
) -> tuple[Interval | None, ...]:
    """The interval of the share of correct images, of the images with each label."""
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(labels, minlength=classes))[:-1])
    return tuple(
        share_interval(correct[part], None if groups is None else groups[part]) if len(part) else None
        for part in parts
    )


def _confidence(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,) the probability of the predicted class."""
    parts = (logits[start : start + CHUNK] for start in range(0, len(logits), CHUNK))
    return np.concatenate([np.exp(log_softmax(part).max(axis=1)) for part in parts])


def _has_width(found: Interval) -> bool:
    return math.isfinite(found[0]) and found[0] < found[1]
