"""Metrics of a classifier on a set of images: accuracy with its interval, loss, calibration, per class.

:data:`METRICS` registers each metric once. JSON and the screen read that table. The module imports neither
scipy nor scikit-learn, whose import takes longer than the first epoch of a small run; tests compare the
numbers with theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import log_softmax
from finetune.errors import DataError, FinetuneError, require_known
from finetune.evaluation.resampling import count_groups, share_interval, wilson

CALIBRATION_BINS = 15
TOP_K = 5
# Rows of logits converted to float64 probabilities at a time. Bounds the memory; the result is the same.
CHUNK = 4096


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class against all others.

    A rate without a denominator is 0: the precision of a class that was never predicted, the recall of a
    class without images. ``support`` is the number of images of the class.
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
class Outcomes:
    """The quantities that metrics are computed from, for N images in C classes.

    Attributes:
        logits: (N, C).
        targets: (N,) true class indices.
        correct: (N,) whether the prediction is right.
        log_likelihood: (N,) log-probability of the true class.
        confidence: (N,) probability of the predicted class.
        per_class: one entry per class, in logit order.
    """

    logits: NDArray[np.floating]
    targets: NDArray[np.integer]
    correct: NDArray[np.bool_]
    log_likelihood: NDArray[np.float64]
    confidence: NDArray[np.float64]
    per_class: tuple[ClassMetrics, ...]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: its key in JSON.
        label: its name on the screen.
        compute: returns its value, or None if the metric is undefined for these classes.
        of_value: formats its value for the screen.
        of_end: formats an end of its interval; None: as its value.
        note: is appended.
    """

    name: str
    label: str
    compute: Callable[[Outcomes], float | None]
    of_value: Callable[[float], str]
    of_end: Callable[[float], str] | None = None
    note: str = ""

    def in_words(self, value: float, interval: tuple[float, float] | None = None) -> str:
        """Format for the screen: ``93.75 % [91.0 to 95.7]``."""
        of_end = self.of_end or self.of_value
        ends = "" if interval is None else f" [{of_end(interval[0])} to {of_end(interval[1])}]"
        return f"{self.of_value(value)}{ends}{self.note}"


@dataclass(frozen=True)
class Metrics:
    """The result of :func:`classification_metrics`. Rates are fractions from 0 to 1.

    Attributes:
        values: the value of each metric of :data:`METRICS` that is defined for these classes.
        top1_low, top1_high: the 95 % interval of top-1, by groups where images have groups
            (:func:`~finetune.evaluation.resampling.share_interval`).
        n: the number of images.
        classes: names in logit order.
        per_class: one entry per class, in logit order.
        confusion: (C, C) counts; rows are true classes, columns predicted ones.
        groups: the number of groups; None if images have no groups.
        images_interval: Wilson's 95 % interval of top-1, as if images of a group were independent; None if
            images have no groups.
    """

    values: Mapping[str, float]
    top1_low: float
    top1_high: float
    n: int
    classes: tuple[str, ...]
    per_class: tuple[ClassMetrics, ...]
    confusion: NDArray[np.int64]
    groups: int | None = None
    images_interval: tuple[float, float] | None = None

    @property
    def top1(self) -> float:
        """Accuracy: the fraction of images whose most probable class is the true one."""
        return self.values["top1"]

    @property
    def counted(self) -> str:
        """What the intervals count: ``n = 400``, or ``n = 400 in 31 groups``."""
        return f"n = {self.n:,}" + ("" if self.groups is None else f" in {self.groups:,} groups")

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the softmax, in nats."""
        return self.values["loss"]

    def __getitem__(self, name: str) -> float | None:
        """Return the metric called ``name``; None if it is undefined for these classes.

        Raises:
            FinetuneError: :data:`METRICS` has no such metric.
        """
        require_known("metric", name, tuple(METRICS))
        return self.values.get(name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every number finite. Undefined metrics are absent."""
        return {
            "top1": self.top1,
            "top1_low": self.top1_low,
            "top1_high": self.top1_high,
            "n": self.n,
            **self._of_groups(),
            **self.values,
            "classes": list(self.classes),
            "per_class": [entry.to_dict() for entry in self.per_class],
            "confusion": self.confusion.tolist(),
        }

    def _of_groups(self) -> dict[str, Any]:
        if self.groups is None or self.images_interval is None:
            return {}
        low, high = self.images_interval
        return {"groups": self.groups, "top1_low_images": low, "top1_high_images": high}


def calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Expected calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3).

    Images are sorted into bins of equal width by the probability of their predicted class. Bins are open
    below and closed above. The error is the mean gap between accuracy and confidence of a bin, weighted by
    its number of images.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) whether the prediction is right.
    """
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, CALIBRATION_BINS - 1)
    weights = correct.astype(np.float64) - confidence
    gaps = np.bincount(which, weights, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def classification_metrics(
    logits: NDArray[np.floating],
    targets: NDArray[np.integer],
    classes: Sequence[str],
    groups: NDArray[np.int64] | None = None,
) -> Metrics:
    """Compute all metrics for N images in C classes. Of equal logits, the lowest index wins.

    Args:
        logits: (N, C), finite.
        targets: (N,) true class indices, 0 to C - 1.
        classes: C names in logit order.
        groups: (N,) the group of each image; None if images have no groups.

    Raises:
        DataError: there are no images.
        FinetuneError: a logit is infinite or not a number.
    """
    _check(logits, targets, classes)
    n, num_classes = logits.shape
    predicted = logits.argmax(axis=1)
    correct = predicted == targets
    counts = np.bincount(targets * num_classes + predicted, minlength=num_classes**2)
    confusion = counts.reshape(num_classes, num_classes).astype(np.int64)
    per_class = _per_class(confusion, classes)
    outcomes = Outcomes(logits, targets, correct, *_likelihood_and_confidence(logits, targets), per_class)
    computed = {name: metric.compute(outcomes) for name, metric in METRICS.items()}
    low, high = share_interval(correct, groups)
    return Metrics(
        values={name: value for name, value in computed.items() if value is not None},
        top1_low=low,
        top1_high=high,
        n=n,
        classes=tuple(classes),
        per_class=per_class,
        confusion=confusion,
        groups=count_groups(groups),
        images_interval=None if groups is None else wilson(int(correct.sum()), n),
    )


def _check(logits: NDArray[np.floating], targets: NDArray[np.integer], classes: Sequence[str]) -> None:
    n, num_classes = logits.shape
    if len(targets) != n or len(classes) != num_classes:
        raise ValueError(f"{logits.shape} logits, {len(targets)} targets and {len(classes)} classes")
    if n == 0:
        raise DataError("there are no images to evaluate")
    if targets.min() < 0 or targets.max() >= num_classes:
        raise ValueError(f"targets must be from 0 to {num_classes - 1}")
    faulty = int((~np.isfinite(logits).all(axis=1)).sum())
    if faulty:
        raise FinetuneError(
            f"the model computes logits that are infinite or not a number for {faulty} of {n} images; "
            "its weights or its preprocessing are broken"
        )


def _per_class(confusion: NDArray[np.int64], classes: Sequence[str]) -> tuple[ClassMetrics, ...]:
    hits, support, guesses = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = hits / np.maximum(guesses, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(guesses + support, 1)
    return tuple(
        ClassMetrics(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
        for i, name in enumerate(classes)
    )


def _likelihood_and_confidence(
    logits: NDArray[np.floating], targets: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) log-probability of the true class, and (N,) probability of the predicted class."""
    likelihood, confidence = np.empty(len(logits)), np.empty(len(logits))
    for start in range(0, len(logits), CHUNK):
        part = slice(start, start + CHUNK)
        log_probability = log_softmax(logits[part])
        likelihood[part] = np.take_along_axis(log_probability, targets[part, None], axis=1)[:, 0]
        confidence[part] = np.exp(log_probability.max(axis=1))
    return likelihood, confidence


def _top5(outcomes: Outcomes) -> float | None:
    """Fraction of images whose true class is among the five most probable; None for five classes or fewer."""
    logits, targets = outcomes.logits, outcomes.targets
    num_classes = logits.shape[1]
    if num_classes <= TOP_K:
        return None
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    earlier = np.arange(num_classes) < targets[:, None]
    rank = np.asarray(((logits > own) | ((logits == own) & earlier)).sum(axis=1))
    return float((rank < TOP_K).mean())


def _mean_over_classes(rate: str, outcomes: Outcomes) -> float:
    """Mean of a rate over the classes that have images."""
    return float(np.mean([getattr(entry, rate) for entry in outcomes.per_class if entry.support]))


# Formats a fraction, and an end of its interval.
_PERCENT = (lambda value: f"{100 * value:.2f} %", lambda end: f"{100 * end:.1f}")


# In the order of the screen.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", "top-1", lambda found: float(found.correct.mean()), *_PERCENT),
        Metric("top5", "top-5", _top5, *_PERCENT),
        Metric("balanced_accuracy", "balanced accuracy", partial(_mean_over_classes, "recall"), *_PERCENT),
        Metric("macro_f1", "macro F1", partial(_mean_over_classes, "f1"), *_PERCENT),
        Metric("loss", "loss", lambda found: float(-found.log_likelihood.mean()), "{:.4f}".format),
        Metric(
            "ece",
            "calibration error",
            lambda found: calibration_error(found.confidence, found.correct),
            "{:.4f}".format,
            note=f"  (expected, {CALIBRATION_BINS} bins)",
        ),
    )
}
