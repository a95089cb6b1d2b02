"""What a working point does on the images of a split: rates of its class, accuracy, costs, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import softmax
from finetune.decision.working_point import Costs, Goal, Threshold, WorkingPoint
from finetune.evaluation.choose_threshold import choose_threshold
from finetune.evaluation.estimates import Estimate, Groups, Share
from finetune.evaluation.one_class import OneClass
from finetune.evaluation.resampling import count_groups

# Points of the curves in JSON, at most.
POINTS = 200


@dataclass(frozen=True)
class Decided:
    """The probabilities of N images of a split, N at least 1, and their true classes.

    Attributes:
        name: the split.
        probabilities: (N, C) calibrated.
        targets: (N,) true class indices.
        classes: C names in logit order.
        groups: (N,) the group of each image; None without groups.
    """

    name: str
    probabilities: NDArray[np.float64]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: Groups = None

    @classmethod
    def of_logits(
        cls,
        name: str,
        calibrated: NDArray[np.float32],
        targets: NDArray[np.int64],
        classes: Sequence[str],
        groups: Groups = None,
    ) -> "Decided":
        """From (N, C) logits that are divided by the temperature."""
        return cls(name, softmax(calibrated), targets, tuple(classes), groups)

    def one_class(self, name: str) -> OneClass:
        """One class against the rest."""
        place = self.classes.index(name)
        return OneClass(self.probabilities[:, place], self.targets == place, self.groups)

    def accuracy(self, point: WorkingPoint | None = None) -> Share:
        """The share of images whose decided class is right; without a point, the most probable class."""
        found = Share.of(self._decide(point) == self.targets, self.groups)
        assert found is not None
        return found

    def cost(self, point: Costs) -> "CostRates":
        """What the mistakes cost, decided by the least expected cost and by the greatest probability."""
        costs = point.matrix(self.classes)
        decided, probable = self._decide(point), self._decide(None)
        own, plain = costs[self.targets, decided], costs[self.targets, probable]
        return CostRates(
            Estimate.mean(own, self.groups),
            Estimate.mean(plain, self.groups),
            Estimate.mean(own - plain, self.groups),
            int((decided != probable).sum()),
            self.accuracy(point),
            self.accuracy(),
            count_groups(self.groups),
        )

    def rates(self, point: WorkingPoint) -> "ThresholdRates | CostRates":
        """What a working point does on these images."""
        return self.cost(point) if isinstance(point, Costs) else ThresholdRates.of(self, point)

    def _decide(self, point: WorkingPoint | None) -> NDArray[np.intp]:
        if point is None:
            return np.asarray(self.probabilities.argmax(axis=1))
        return point.decide(self.probabilities, self.classes)


@dataclass(frozen=True)
class CostRates:
    """What mistakes cost on a split, per image, with 95 % intervals.

    Attributes:
        mean_cost: of the classes of least expected cost.
        most_probable_cost: of the most probable classes.
        difference: the first minus the second, on the same images.
        changed: images that get another class than the most probable one.
        accuracy, most_probable_accuracy: of both.
        groups: the number of groups that the intervals count; None: they count images.
    """

    mean_cost: Estimate
    most_probable_cost: Estimate
    difference: Estimate
    changed: int
    accuracy: Share
    most_probable_accuracy: Share
    groups: int | None = None

    @property
    def n(self) -> int:
        """The number of images."""
        return self.accuracy.n

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("mean_cost", "most_probable_cost", "difference", "accuracy", "most_probable_accuracy")
        about = {"n": self.n, **_of_groups(self.groups), "changed": self.changed}
        return about | {name: getattr(self, name).to_dict() for name in names}


@dataclass(frozen=True)
class ThresholdRates:
    """What a threshold of one class does on a split, with 95 % intervals. None: there are no such images.

    Attributes:
        positives: the number of images of the class.
        recall: of the images of the class, the share that is flagged.
        precision: of the flagged images, the share that is of the class.
        specificity: of the other images, the share that is not flagged.
        flagged: of all images, the share that is flagged.
        accuracy, most_probable_accuracy: of the classes that are decided, and of the most probable ones.
        groups: the number of groups that the intervals count; None: they count images.
    """

    positives: int
    recall: Share | None
    precision: Share | None
    specificity: Share | None
    flagged: Share
    accuracy: Share
    most_probable_accuracy: Share
    groups: int | None = None

    @classmethod
    def of(cls, images: Decided, point: Threshold) -> "ThresholdRates":
        one, groups = images.one_class(point.class_name), images.groups
        flagged = one.scores >= point.at

        def share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Share | None:
            return Share.of(hits[among], None if groups is None else groups[among])

        every = Share.of(flagged, groups)
        assert every is not None
        return cls(
            one.positives,
            share(flagged, one.is_class),
            share(one.is_class, flagged),
            share(~flagged, ~one.is_class),
            every,
            images.accuracy(point),
            images.accuracy(),
            count_groups(groups),
        )

    @property
    def n(self) -> int:
        """The number of images."""
        return self.flagged.n

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; rates without images are null."""
        names = ("recall", "precision", "specificity", "flagged", "accuracy", "most_probable_accuracy")
        rates = {name: getattr(self, name) for name in names}
        about = {"n": self.n, **_of_groups(self.groups), "images_of_class": self.positives}
        return about | {name: None if rate is None else rate.to_dict() for name, rate in rates.items()}


@dataclass(frozen=True)
class ThresholdResult:
    """A threshold of one class: chosen on val, measured on a split.

    Attributes:
        class_name: the class.
        goal: what it was chosen for; None if it was given, or if only the curves are asked for.
        point: the threshold; None if val cannot give one. If ``is_reached`` is False, it is the nearest.
        is_reached: whether it reaches the goal on val.
        is_kept: whether the run keeps it.
        val: what it does on val.
        rates: what it does on the split.
        images: the split.
        one: the class against the rest, on the split.
        val_one: the same on val.
    """

    class_name: str
    goal: Goal | None
    point: Threshold | None
    is_reached: bool
    is_kept: bool
    val: ThresholdRates | None
    rates: ThresholdRates | None
    images: Decided
    one: OneClass
    val_one: OneClass

    @property
    def split(self) -> str:
        return self.images.name

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every number finite."""
        one = self.one
        return {
            "class": self.class_name,
            "goal": None if self.goal is None else {self.goal.measure: self.goal.value},
            "threshold": self.point.at if self.point is not None and self.is_reached else None,
            "nearest": self.point.at if self.point is not None and not self.is_reached else None,
            "kept": self.is_kept,
            "val": None if self.val is None else self.val.to_dict(),
            "split": self.split,
            "measured": None if self.rates is None else self.rates.to_dict(),
            "auroc": None if one.auroc is None else one.auroc.to_dict(),
            "average_precision": None if one.average_precision is None else one.average_precision.to_dict(),
            "curve": one.sweep.points(POINTS),
        }


@dataclass(frozen=True)
class CostResult:
    """Costs, and what they do on a split."""

    point: Costs
    is_kept: bool
    rates: CostRates
    images: Decided

    @property
    def split(self) -> str:
        return self.images.name

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every number finite."""
        return {
            **self.point.to_dict(),
            "kept": self.is_kept,
            "split": self.split,
            "measured": self.rates.to_dict(),
        }


def threshold_for(val: Decided, class_name: str, goal: Goal) -> tuple[Threshold | None, bool]:
    """Choose the threshold of a class on val.

    Returns:
        The threshold, and whether it reaches the goal. None if val has no image of the class.
    """
    choice = choose_threshold(val.one_class(class_name).sweep, goal)
    if choice is None:
        return None, False
    return Threshold(class_name, choice.at, goal), choice.is_reached


def _of_groups(groups: int | None) -> dict[str, int]:
    return {} if groups is None else {"groups": groups}
