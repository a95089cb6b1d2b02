"""Not sure: answer only where the accuracy among the answered images reaches a goal.

The threshold on the probability of the predicted class is chosen on val (a reject option: Chow 1970, "On
optimum recognition error and reject tradeoff"; El-Yaniv & Wiener 2010 for the risk-coverage curve).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.conformal import SLACK
from finetune.decision.probabilities import surprise
from finetune.decision.sorted_scores import SortedScores, ranks_of
from finetune.errors import UserError

# Images that a card keeps.
MOST = 1000
# Of the bound of the accuracy. ``docs/measured/calibration.md`` says how often new images fall short with it.
CONFIDENCE = 0.8


@dataclass(frozen=True)
class AnswerRule:
    """Which images are answered: those whose predicted class has a -log p of at most ``threshold``.

    Attributes:
        answered: how many images of val that are.
        right: how many of them are right.
        n: the images of val.
    """

    threshold: float
    answered: int
    right: int
    n: int

    @property
    def probability(self) -> float:
        """The least probability of the predicted class that is answered."""
        return math.exp(-self.threshold)

    def in_words(self, goal: float) -> str:
        """Say what share of val is answered, and how accurately."""
        return (
            f"for an accuracy of {100 * goal:g} %, {self.answered:,} of {self.n:,} images of val "
            f"({100 * self.answered / self.n:.1f} %) are answered, {self.right:,} of them right "
            f"({100 * self.right / self.answered:.1f} %)"
        )

    def is_sure(self, logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N,) whether each image of (N, C) calibrated logits is answered."""
        return np.asarray(surprise(logits).min(axis=1) <= self.threshold * (1 + SLACK), dtype=np.bool_)


@dataclass(frozen=True)
class Answers:
    """How sure the network is of the images of val, and of how many it is right.

    Attributes:
        surprises: -log p of the predicted class.
        right: for each kept value of ``surprises``: how many images up to it are right.
    """

    surprises: SortedScores
    right: tuple[int, ...]

    @classmethod
    def of(cls, logits: NDArray[np.floating], targets: NDArray[np.integer]) -> "Answers":
        """From N images of val.

        Args:
            logits: (N, C), calibrated.
            targets: (N,) true class indices.
        """
        scores = surprise(logits).min(axis=1)
        order = np.argsort(scores, kind="stable")
        right = np.cumsum((logits.argmax(axis=1) == targets)[order])
        kept = SortedScores.of(scores, MOST)
        return cls(kept, tuple(int(right[rank - 1]) for rank in ranks_of(kept.n, len(kept.values))))

    def rule(self, goal: float) -> AnswerRule | None:
        """Answer the largest share of images for which val speaks for the goal; None: no share does.

        The lower end of the one-sided interval of the accuracy on val (Clopper & Pearson 1934), at a
        confidence of ``CONFIDENCE``, has to reach the goal.
        """
        from scipy.special import bdtr

        n, values = self.surprises.n, np.asarray(self.surprises.values)
        ranks, right = ranks_of(n, len(values)), np.asarray(self.right, dtype=np.int64)
        # Of equal values, the last counts: they are answered together.
        last = np.append(values[1:] != values[:-1], True)[: len(values)]
        # With an accuracy of just the goal, so few mistakes would be that rare.
        speaks = bdtr(ranks - right, ranks, 1 - goal) <= 1 - CONFIDENCE
        places = np.flatnonzero(last & speaks)
        if not len(places):
            return None
        place = int(places[-1])
        return AnswerRule(float(values[place]), int(ranks[place]), int(right[place]), n)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"surprises": self.surprises.to_dict(), "right": list(self.right)}

    @classmethod
    def from_dict(cls, value: Any) -> "Answers":
        """Read the result of :meth:`to_dict`.

        Raises:
            ValueError: an entry is missing, has the wrong type or is out of range.
        """
        if not isinstance(value, dict):
            raise ValueError("must be a mapping of surprises and right")
        surprises, right = SortedScores.from_dict(value.get("surprises")), value.get("right")
        if not isinstance(right, list) or not all(type(each) is int for each in right):
            raise ValueError("right must be a list of numbers of images")
        ranks = ranks_of(surprises.n, len(surprises.values))
        if len(right) != len(ranks) or any(not 0 <= r <= rank for r, rank in zip(right, ranks, strict=True)):
            raise ValueError("right must hold one number of images for each of surprises")
        return cls(surprises, tuple(right))


def read_answers(value: Any) -> Answers | None:
    """Read what a card keeps; None, from older versions, means that it keeps nothing.

    Raises:
        ValueError: as :meth:`Answers.from_dict`.
    """
    return None if value is None else Answers.from_dict(value)


def least_answered(goal: float) -> int:
    """The fewest answered images of val, all right, that speak for a goal."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(goal))


def no_rule(goal: float, n: int) -> UserError:
    """The error for a goal that nothing on val speaks for."""
    return UserError(
        f"abstain: no threshold shows an accuracy of {100 * goal:g} % on the {n:,} images of val. It takes "
        f"{least_answered(goal):,} sure images without a mistake. Ask for less, or have more images."
    )
