"""Whether and for what a network can be trusted: calibration and thresholds, counted on a split."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.metrics import Metrics
from finetune.evaluation.resampling import share_interval
from finetune.reporting.cases import Predictions

# The least images from which a rate is stated in a sentence.
LEAST = 20
# How near predictions have to be to what a sentence says: the first that holds enough images.
WIDTHS = (0.05, 0.1, 0.15)
SAID = 0.9
THRESHOLDS = (0.0, 0.5, 0.7, 0.9, 0.95, 0.99)
BINS = 10


@dataclass(frozen=True)
class Rate:
    """Of ``n`` predictions, ``right`` are right. Their probabilities: ``low`` to ``high``, mean ``said``.

    ``interval`` is the 95 % interval of ``share``, by groups where images have groups.
    """

    low: float
    high: float
    said: float
    right: int
    n: int
    interval: tuple[float, float]

    @property
    def share(self) -> float:
        return self.right / self.n


@dataclass(frozen=True)
class Trust:
    """What the probabilities of a network are worth, on one split.

    Attributes:
        whole: all predictions.
        at_said: those near ``SAID``; None if there are too few.
        thresholds: those of at least a probability, per threshold of :data:`THRESHOLDS` that any reach.
        bins: those of each tenth from 0 to 1 that holds any.
        verdict: ``honest``, ``too high`` or ``too low``: the probabilities, against the share of right ones.
        baseline: the share of the most frequent class, ``most_frequent``.
    """

    whole: Rate
    at_said: Rate | None
    thresholds: tuple[Rate, ...]
    bins: tuple[Rate, ...]
    verdict: str
    baseline: float
    most_frequent: str


def measure_trust(predictions: Predictions, metrics: Metrics) -> Trust:
    """Count how often predictions are right, by their probability."""
    whole = _rate(predictions, 0.0, 1.0)
    assert whole is not None
    near = (_rate(predictions, SAID - width, min(SAID + width, 1.0)) for width in WIDTHS)
    found = [_rate(predictions, low, 1.0) for low in THRESHOLDS]
    edges = np.linspace(0, 1, BINS + 1)
    tenths = [_rate(predictions, low, high, open_below=low > 0) for low, high in pairwise(edges)]
    supports = [each.support for each in metrics.per_class]
    most = int(np.argmax(supports))
    return Trust(
        whole,
        next((each for each in near if each is not None and each.n >= LEAST), None),
        tuple(each for each in found if each is not None),
        tuple(each for each in tenths if each is not None),
        _verdict(whole),
        supports[most] / metrics.n,
        metrics.classes[most],
    )


def weakest(metrics: Metrics, count: int) -> list[int]:
    """The classes of which the smallest share is found, worst first; only those with a mistake."""
    entries = metrics.per_class
    faulty = [place for place, each in enumerate(entries) if each.support and each.recall < 1]
    return sorted(faulty, key=lambda place: (entries[place].recall, -entries[place].support))[:count]


def confused_pairs(confusion: NDArray[np.int64], count: int) -> list[tuple[int, int]]:
    """The pairs of a true and a predicted class with the most mistakes, the largest first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.lexsort((columns, rows, -wrong[rows, columns]))[:count]
    return [(int(rows[at]), int(columns[at])) for at in order]


def _rate(predictions: Predictions, low: float, high: float, *, open_below: bool = False) -> Rate | None:
    confidence, groups = predictions.confidence, predictions.collected.groups
    inside = ((confidence > low) if open_below else (confidence >= low)) & (confidence <= high)
    count = int(inside.sum())
    if not count:
        return None
    right = predictions.correct[inside]
    interval = share_interval(right, None if groups is None else groups[inside])
    return Rate(low, high, float(confidence[inside].mean()), int(right.sum()), count, interval)


def _verdict(whole: Rate) -> str:
    low, high = whole.interval
    if whole.said > high:
        return "too high"
    return "too low" if whole.said < low else "honest"
