"""Prediction sets that hold the true class as often as was asked: split conformal prediction.

An image of val gets a score: how badly its true class fits it. The threshold is the score of rank
ceil((n + 1) coverage) among the n of val. The set of a new image holds the classes whose score is at most
the threshold. If the new image and those of val are exchangeable, its true class is in the set with a
probability of at least ``coverage``, and at most ``coverage + 1 / (n + 1)`` if no scores are equal (Vovk et
al. 2005, "Algorithmic Learning in a Random World").

- ``smallest``: the score is -log p, so that the classes above one probability are in the set. No sets with
  that coverage are smaller on average (Sadinle, Lei & Wasserman 2019, "Least Ambiguous Set-Valued
  Classifiers with Bounded Error Levels").
- ``adaptive``: the score is the probability of all better classes, plus a random part of the class's own
  (Romano, Sesia & Candès 2020, "Classification with Valid and Adaptive Coverage"). Without the random part
  the surest images would be the first to lose their class.
- ``per-class``: as ``smallest``, with a threshold per class, so that the coverage holds within each class
  (Vovk 2012, "Conditional validity of inductive conformal predictors").

No class is ever forced into a set: forced ones raise the coverage above what was asked.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import surprise
from finetune.decision.sorted_scores import SortedScores, least_images
from finetune.decision.wanted import Sets

# Scores that a card keeps: of all images for each of two scores, and of the classes together.
MOST, MOST_OF_CLASSES = 2500, 2500
# A run and its ONNX file compute logits that differ in their last digits. Scores that are greater than the
# threshold by this share count as equal to it.
SLACK = 1e-4


@dataclass(frozen=True)
class Conformal:
    """The scores of val, for the threshold of any coverage.

    Attributes:
        smallest: -log p of the true class.
        adaptive: the probability of the better classes, plus a random part of the true class's.
        per_class: as ``smallest``, for the images of each class.
        groups: the number of groups that the images come from; None if they have no groups.
    """

    smallest: SortedScores
    adaptive: SortedScores
    per_class: tuple[SortedScores, ...]
    groups: int | None = None

    @classmethod
    def of(
        cls,
        logits: NDArray[np.floating],
        targets: NDArray[np.integer],
        groups: NDArray[np.integer] | None = None,
    ) -> "Conformal":
        """Compute the scores of N images of val.

        Args:
            logits: (N, C), calibrated.
            targets: (N,) true class indices.
            groups: (N,) the group of each image.
        """
        rows, num_classes = np.arange(len(targets)), logits.shape[1]
        scores = surprise(logits)
        own = scores[rows, targets]
        # Of the logits, so that other images get other numbers: one fixed draw would shift every threshold.
        chance = np.array([chance_of(row) for row in logits])
        adaptive = adaptive_scores(scores, chance)[rows, targets]
        share = MOST_OF_CLASSES // num_classes
        return cls(
            SortedScores.of(own, MOST),
            SortedScores.of(adaptive, MOST),
            tuple(SortedScores.of(own[targets == each], share) for each in range(num_classes)),
            None if groups is None else len(np.unique(groups)),
        )

    def rule(self, coverage: float, sets: Sets) -> "SetRule":
        """The thresholds of the prediction sets with that coverage."""
        if sets == "per-class":
            found = np.array([each.quantile(coverage) for each in self.per_class])
        else:
            pooled = self.adaptive if sets == "adaptive" else self.smallest
            found = np.full(len(self.per_class), pooled.quantile(coverage))
        return SetRule(sets, found)

    def guarantee(self, coverage: float, sets: Sets, classes: tuple[str, ...]) -> str:
        """Say in plain words what the sets promise. ``classes`` are names that can be printed."""
        n, least = self.smallest.n, least_images(coverage)
        wanted = f"{100 * coverage:g} %"
        if sets != "per-class" and n < least:
            return (
                f"val has {n:,} images, too few for a coverage of {wanted}, which needs {least:,}: every set "
                "holds all classes"
            )
        of_class = " of each class" if sets == "per-class" else ""
        text = (
            f"prediction sets ({sets}): at least {wanted} of new images{of_class} have their true class in "
            f"the set, on average over draws of val, if they are like the {n:,} images of val. An empty set "
            "means that no class fits well enough"
        )
        few = [name for name, each in zip(classes, self.per_class, strict=True) if each.n < least]
        if sets == "per-class" and few:
            text += (
                f". {len(few)} of {len(classes)} classes have fewer than the {least:,} images in val that "
                f"this needs, and are in every set: {', '.join(few[:5])}{', ...' if len(few) > 5 else ''}"
            )
        if self.groups is not None:
            text += (
                f". The images of val come from {self.groups:,} groups. Images of one group are alike, so "
                "the share is only roughly right for new groups"
            )
        return text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "smallest": self.smallest.to_dict(),
            "adaptive": self.adaptive.to_dict(),
            "per_class": [each.to_dict() for each in self.per_class],
            "groups": self.groups,
        }

    @classmethod
    def from_dict(cls, value: Any) -> "Conformal":
        """Read the result of :meth:`to_dict`.

        Raises:
            ValueError: an entry is missing, has the wrong type or is out of range.
        """
        if not isinstance(value, dict) or not isinstance(value.get("per_class"), list):
            raise ValueError("must be a mapping of smallest, adaptive and per_class")
        groups = value.get("groups")
        if groups is not None and not isinstance(groups, int):
            raise ValueError("groups must be a number of groups")
        return cls(
            SortedScores.from_dict(value.get("smallest")),
            SortedScores.from_dict(value.get("adaptive")),
            tuple(map(SortedScores.from_dict, value["per_class"])),
            groups,
        )


def read_conformal(value: Any) -> Conformal | None:
    """Read what a card keeps; None, from older versions, means that it keeps nothing.

    Raises:
        ValueError: as :meth:`Conformal.from_dict`.
    """
    return None if value is None else Conformal.from_dict(value)


@dataclass(frozen=True)
class SetRule:
    """Thresholds on scores: a class is in the set if its score is at most its threshold.

    Attributes:
        sets: which scores.
        thresholds: (C,) per class; infinite: the class is in every set.
    """

    sets: Sets
    thresholds: NDArray[np.float64]

    def members(self, logits: NDArray[np.floating], chance: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (N, C): which classes are in the set of each image.

        Args:
            logits: (N, C), calibrated.
            chance: (N,) from 0 to 1, the random part of adaptive scores.
        """
        scores = surprise(logits)
        if self.sets == "adaptive":
            scores = adaptive_scores(scores, chance)
        return np.asarray(scores <= self.thresholds * (1 + SLACK), dtype=np.bool_)


def adaptive_scores(surprises: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of all better classes, plus ``chance`` times that of the class itself: (N, C).

    Args:
        surprises: (N, C) -log p.
        chance: (N,) from 0 to 1.
    """
    order = np.argsort(surprises, axis=1, kind="stable")
    probability = np.exp(-np.take_along_axis(surprises, order, axis=1))
    before = np.cumsum(probability, axis=1) - probability
    scores = np.empty_like(surprises)
    np.put_along_axis(scores, order, before + chance[:, None] * probability, axis=1)
    return scores


def chance_of(values: NDArray[np.floating]) -> float:
    """A number from 0 to 1 that looks random, and that the bytes of an array determine.

    New images get that of their preprocessed pixels. So an image has the same adaptive set from a run and
    from its ONNX file, under any name.
    """
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
