"""Check on a split what prediction sets and abstaining promise. Torch-free."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.abstain import Answers
from finetune.decision.conformal import Conformal, chance_of
from finetune.decision.probabilities import surprise
from finetune.decision.wanted import Sets
from finetune.evaluation.calibration_check import Estimate, Floats
from finetune.evaluation.columns import align_columns
from finetune.evaluation.resampling import interval, share_interval

# Shares of images that the risk-coverage table answers.
SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25)


@dataclass(frozen=True)
class Images:
    """N images of a split.

    Attributes:
        logits: (N, C), calibrated.
        targets: (N,) true class indices.
        groups: (N,) the group of each image; None: images have no groups.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class SetsCheck:
    """How prediction sets did on a split.

    Attributes:
        asked: the coverage that was asked for.
        coverage: the share of images whose set holds their true class.
        size: the mean number of classes in a set.
        empty: the share of images with an empty set.
        guarantee: what the sets promise, in words.
    """

    asked: float
    sets: Sets
    coverage: Estimate
    size: Estimate
    empty: float
    guarantee: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "asked": self.asked,
            "sets": self.sets,
            **self.coverage.entries("coverage"),
            **self.size.entries("mean_size"),
            "empty": self.empty,
            "guarantee": self.guarantee,
        }

    def in_words(self) -> str:
        """Format the check for the screen."""
        return (
            f"prediction sets ({self.sets}) for a coverage of {100 * self.asked:g} %: they hold the true "
            f"class of {_percent(self.coverage)}\nof images; {self.size.value:.2f} [{self.size.low:.2f} to "
            f"{self.size.high:.2f}] classes in a set; {100 * self.empty:.1f} % of sets are empty"
        )


def check_sets(
    images: Images, conformal: Conformal, coverage: float, sets: Sets, classes: tuple[str, ...]
) -> SetsCheck:
    """Measure the coverage and the size of prediction sets.

    Args:
        classes: names that can be printed, for the guarantee.
    """
    logits, targets, groups = images.logits, images.targets, images.groups
    chance = np.array([chance_of(row) for row in logits])
    members = conformal.rule(coverage, sets).members(logits, chance)
    hits, shares = members[np.arange(len(targets)), targets], members.mean(axis=1)
    low, high = interval(partial(_mean, shares), len(shares), groups)
    size, num_classes = float(members.sum(axis=1).mean()), members.shape[1]
    return SetsCheck(
        coverage,
        sets,
        Estimate(float(hits.mean()), *share_interval(hits, groups)),
        Estimate(size, min(low * num_classes, size), max(high * num_classes, size)),
        float((shares == 0).mean()),
        conformal.guarantee(coverage, sets, classes),
    )


@dataclass(frozen=True)
class Point:
    """Of the surest ``answered`` images (a share), those with a probability of at least ``probability``,
    ``accuracy`` are right (a share)."""

    answered: float
    probability: float
    accuracy: float


@dataclass(frozen=True)
class AbstainCheck:
    """How abstaining did on a split.

    Attributes:
        asked: the accuracy that was asked for.
        threshold: the least probability that is answered; None: val speaks for no threshold.
        answered: the share of answered images.
        accuracy: among the answered ones; None: none is answered.
        curve: the accuracy for several shares of answered images.
    """

    asked: float
    threshold: float | None
    answered: Estimate
    accuracy: Estimate | None
    curve: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {"asked": self.asked, "threshold": self.threshold}
        found |= self.answered.entries("answered")
        if self.accuracy is not None:
            found |= self.accuracy.entries("accuracy")
        return found | {"curve": [asdict(point) for point in self.curve]}

    def in_words(self) -> str:
        """Format the check and the risk-coverage table for the screen."""
        asked = f"for an accuracy of {100 * self.asked:g} %"
        if self.threshold is None:
            head = f"{asked}, no threshold on val is enough: no image is answered"
        else:
            right = "" if self.accuracy is None else f",\n{_percent(self.accuracy)} of them right"
            head = (
                f"{asked}, images with a probability of at least {100 * self.threshold:.2f} % are answered:\n"
                f"{_percent(self.answered)} of images{right}"
            )
        rows = [["answered", "from probability", "accuracy"]]
        for point in self.curve:
            rows.append([f"{100 * v:.1f} %" for v in (point.answered, point.probability, point.accuracy)])
        return f"{head}\n\n{align_columns(rows, text=0)}"


def check_abstaining(images: Images, answers: Answers, goal: float) -> AbstainCheck:
    """Measure the share of answered images, and the accuracy among them."""
    correct = images.logits.argmax(axis=1) == images.targets
    rule, groups = answers.rule(goal), images.groups
    sure = np.zeros(len(correct), dtype=np.bool_) if rule is None else rule.is_sure(images.logits)
    accuracy = None
    if sure.any():
        within = None if groups is None else groups[sure]
        accuracy = Estimate(float(correct[sure].mean()), *share_interval(correct[sure], within))
    return AbstainCheck(
        goal,
        None if rule is None else rule.probability,
        Estimate(float(sure.mean()), *share_interval(sure, groups)),
        accuracy,
        risk_coverage(images.logits, correct),
    )


def risk_coverage(logits: NDArray[np.float32], correct: NDArray[np.bool_]) -> tuple[Point, ...]:
    """The accuracy among the surest images, for several shares (El-Yaniv & Wiener 2010, the risk-coverage
    curve)."""
    scores = surprise(logits).min(axis=1)
    order = np.argsort(scores, kind="stable")
    right = np.cumsum(correct[order])
    ranks = sorted({max(round(share * len(order)), 1) for share in SHARES}, reverse=True)
    return tuple(
        Point(rank / len(order), float(np.exp(-scores[order[rank - 1]])), float(right[rank - 1] / rank))
        for rank in ranks
    )


def _mean(values: Floats, rows: NDArray[np.int64]) -> float:
    return float(values[rows].mean())


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.1f} % [{100 * share.low:.1f} to {100 * share.high:.1f}]"
