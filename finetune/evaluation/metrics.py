"""Logits and targets -> the numbers of an evaluation, the accuracy with its interval.

Without scipy and scikit-learn, whose import takes longer than a small run's first epoch; tests hold the
numbers against theirs.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError, FinetuneError
from finetune.evaluation.probabilities import log_softmax

CALIBRATION_BINS = 15
TOP_K = 5
# Rows of logits that are turned into float64 probabilities at a time: bounds the memory, not the result.
CHUNK = 4096


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest.

    What has no denominator is 0: the precision of a class that was never predicted, the recall of one that
    has no image. ``support`` is its number of images.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return {"class": values.pop("name"), **values}


@dataclass(frozen=True)
class Metrics:
    """What :func:`classification_metrics` computes. Rates are fractions from 0 to 1.

    Attributes:
        top1, top1_low, top1_high: accuracy and its Wilson 95% interval.
        n: images.
        top5: share of images whose class is among the five best; None where there are five classes or
            fewer, and it would say nothing.
        loss: mean negative log-likelihood of the softmax, in nats.
        balanced_accuracy, macro_f1: means of recall and F1 over the classes that have images.
        ece: expected calibration error; see :func:`calibration_error`.
        classes: names in logit order.
        per_class: one entry a class, in logit order.
        confusion: (C, C) counts; rows are true classes, columns predicted ones.
    """

    top1: float
    top1_low: float
    top1_high: float
    n: int
    top5: float | None
    loss: float
    balanced_accuracy: float
    macro_f1: float
    ece: float
    classes: tuple[str, ...]
    per_class: tuple[ClassMetrics, ...]
    confusion: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, every number finite; ``top5`` is there only where it says something."""
        values: dict[str, Any] = {
            "top1": self.top1,
            "top1_low": self.top1_low,
            "top1_high": self.top1_high,
            "n": self.n,
        }
        if self.top5 is not None:
            values["top5"] = self.top5
        return values | {
            "loss": self.loss,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "ece": self.ece,
            "classes": list(self.classes),
            "per_class": [entry.to_dict() for entry in self.per_class],
            "confusion": self.confusion.tolist(),
        }


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95% for ``correct`` of ``n``, as fractions (Wilson 1927).

    Unlike the normal approximation it stays within 0 and 1 and has a width at 0 and at ``n`` correct.
    """
    z = NormalDist().inv_cdf(0.975)
    share, spread = correct / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # Where they are 0 and 1 exactly, rounding may miss them.
    low = 0.0 if correct == 0 else centre - half
    return low, 1.0 if correct == n else centre + half


def calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3).

    Images are binned by the probability of their predicted class into ``bins`` equal-width bins, open
    below and closed above; the error is the mean gap between accuracy and confidence of a bin, weighted by
    its images.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) whether the prediction is right.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=correct.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def classification_metrics(
    logits: NDArray[np.floating], targets: NDArray[np.integer], classes: Sequence[str]
) -> Metrics:
    """All metrics of N images in C classes. Of equal logits the lowest index wins.

    Args:
        logits: (N, C), finite.
        targets: (N,) true class indices, 0 to C - 1.
        classes: C names in logit order.

    Raises:
        DataError: there is no image.
        FinetuneError: a logit is infinite or not a number.
    """
    n, num_classes = logits.shape
    if len(targets) != n or len(classes) != num_classes:
        raise ValueError(f"{logits.shape} logits, {len(targets)} targets and {len(classes)} classes")
    if n == 0:
        raise DataError("there is no image to evaluate")
    if targets.min() < 0 or targets.max() >= num_classes:
        raise ValueError(f"targets must be from 0 to {num_classes - 1}")
    faulty = int((~np.isfinite(logits).all(axis=1)).sum())
    if faulty:
        raise FinetuneError(
            f"the model computes logits that are infinite or not a number for {faulty} of {n} images; "
            "its weights or its preprocessing are broken"
        )

    predicted = logits.argmax(axis=1)
    correct = predicted == targets
    likelihood, confidence = _likelihood_and_confidence(logits, targets)
    counts = np.bincount(targets * num_classes + predicted, minlength=num_classes**2)
    confusion = counts.reshape(num_classes, num_classes).astype(np.int64)
    hits, support, guesses = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = hits / np.maximum(guesses, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(guesses + support, 1)
    present = support > 0
    low, high = wilson(int(correct.sum()), n)
    return Metrics(
        top1=float(correct.mean()),
        top1_low=low,
        top1_high=high,
        n=n,
        top5=float((_rank(logits, targets) < TOP_K).mean()) if num_classes > TOP_K else None,
        loss=float(-likelihood.mean()),
        balanced_accuracy=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        ece=calibration_error(confidence, correct),
        classes=tuple(classes),
        per_class=tuple(
            ClassMetrics(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, name in enumerate(classes)
        ),
        confusion=confusion,
    )


def _likelihood_and_confidence(
    logits: NDArray[np.floating], targets: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) log-probability of the true class, and (N,) probability of the predicted one."""
    likelihood, confidence = np.empty(len(logits)), np.empty(len(logits))
    for start in range(0, len(logits), CHUNK):
        part = slice(start, start + CHUNK)
        log_probability = log_softmax(logits[part])
        likelihood[part] = np.take_along_axis(log_probability, targets[part, None], axis=1)[:, 0]
        confidence[part] = np.exp(log_probability.max(axis=1))
    return likelihood, confidence


def _rank(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> NDArray[np.integer]:
    """(N,) how many classes come before the true one; of equal logits the lower index does."""
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    return np.asarray(((logits > own) | ((logits == own) & earlier)).sum(axis=1))
