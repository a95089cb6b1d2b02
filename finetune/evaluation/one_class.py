"""One class against the rest: what each threshold on its probability finds, and both curves with areas."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.estimates import Estimate
from finetune.evaluation.resampling import interval

Counts = NDArray[np.int64]
# From the images of the class and all images that each threshold finds, to an area; NaN if it is undefined.
AreaOf = Callable[[Counts, Counts], float]


@dataclass(frozen=True)
class Sweep:
    """What K thresholds find: every probability that occurs, the highest first.

    Attributes:
        thresholds: (K,) probabilities, all different.
        found: (K,) images of the class with at least this probability.
        flagged: (K,) images with at least this probability.
    """

    thresholds: NDArray[np.float64]
    found: Counts
    flagged: Counts

    @property
    def positives(self) -> int:
        """The number of images of the class."""
        return int(self.found[-1])

    @property
    def negatives(self) -> int:
        """The number of other images."""
        return int(self.flagged[-1]) - self.positives

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,) the share of the class that is found; 0 where there are no images of it."""
        return self.found / max(self.positives, 1)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,) the share of the flagged images that are of the class."""
        return self.found / self.flagged

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """(K,) the share of the other images that is flagged; 0 where there are no others."""
        return (self.flagged - self.found) / max(self.negatives, 1)

    def thinned(self, most: int) -> list[int]:
        """Choose at most ``most`` of the K places, evenly along the ROC curve, with both ends."""
        if len(self.thresholds) <= most:
            return list(range(len(self.thresholds)))
        length = self.recall + self.false_positive_rate
        wanted = np.linspace(length[0], length[-1], most)
        places = {0, *map(int, np.searchsorted(length, wanted[1:-1])), len(length) - 1}
        return sorted(places)

    def points(self, most: int) -> list[dict[str, Any]]:
        """The points of both curves, thinned, JSON-ready: the highest threshold first."""
        recall, precision, false = self.recall, self.precision, self.false_positive_rate
        return [
            {
                "threshold": float(self.thresholds[at]),
                "recall": float(recall[at]) if self.positives else None,
                "precision": float(precision[at]),
                "false_positive_rate": float(false[at]) if self.negatives else None,
                "flagged": int(self.flagged[at]),
            }
            for at in self.thinned(most)
        ]


@dataclass(frozen=True)
class OneClass:
    """The probabilities of one class for N images, N at least 1, and which images are of the class.

    Attributes:
        scores: (N,) the calibrated probability of the class.
        is_class: (N,) whether the image is of the class.
        groups: (N,) the group of each image; None without groups.
    """

    scores: NDArray[np.float64]
    is_class: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def positives(self) -> int:
        """The number of images of the class."""
        return int(self.is_class.sum())

    @cached_property
    def sweep(self) -> Sweep:
        """What each threshold finds."""
        thresholds, places = self._ranks
        return Sweep(-thresholds, *_cumulated(places, self.is_class, len(thresholds)))

    @cached_property
    def auroc(self) -> Estimate | None:
        """The area under the ROC curve; None where every image is of the class, or none is.

        It is the probability that an image of the class has a higher score than another image; equal scores
        count half (Hanley, McNeil 1982, "The meaning and use of the area under a ROC curve").
        """
        return self._area(area_under_roc)

    @cached_property
    def average_precision(self) -> Estimate | None:
        """The precision at the threshold that just finds an image of the class, averaged over these images.

        scikit-learn defines it so. It is the area under the precision-recall curve, drawn in steps. None
        where no image is of the class.
        """
        return self._area(mean_precision)

    @cached_property
    def _ranks(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """The different scores, negated and sorted, and (N,) the place of each score among them."""
        negated, places = np.unique(-self.scores, return_inverse=True)
        return negated, places

    def _area(self, area: AreaOf) -> Estimate | None:
        sweep, places = self.sweep, self._ranks[1]
        value = area(sweep.found, sweep.flagged)
        if np.isnan(value):
            return None

        def statistic(rows: NDArray[np.int64]) -> float:
            return area(*_cumulated(places[rows], self.is_class[rows], len(sweep.thresholds)))

        low, high = interval(statistic, self.n, self.groups)
        # Where no draw has images of both kinds, nothing is known.
        return Estimate(value, *((0.0, 1.0) if np.isnan(low) else (low, high)))


def area_under_roc(found: Counts, flagged: Counts) -> float:
    """The area under the ROC curve through these points and the origin; NaN if a class has no images."""
    others = flagged - found
    if not found[-1] or not others[-1]:
        return float("nan")
    steps = np.diff(others, prepend=0)
    heights = found + np.concatenate(([0], found[:-1]))
    return float((steps * heights).sum() / (2 * int(found[-1]) * int(others[-1])))


def mean_precision(found: Counts, flagged: Counts) -> float:
    """The average precision of these points; NaN if there are no images of the class."""
    if not found[-1]:
        return float("nan")
    steps = np.diff(found, prepend=0)
    return float((steps * (found / np.maximum(flagged, 1))).sum() / found[-1])


def _cumulated(places: NDArray[np.intp], is_class: NDArray[np.bool_], number: int) -> tuple[Counts, Counts]:
    """For each of ``number`` thresholds, the images of the class and all images that reach it."""
    found = np.bincount(places[is_class], minlength=number).cumsum()
    return found, np.bincount(places, minlength=number).cumsum()
