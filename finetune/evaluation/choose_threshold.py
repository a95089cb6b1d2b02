"""Choose the threshold of one class that reaches a recall or a precision on val."""

from dataclasses import dataclass

import numpy as np

from finetune.decision.working_point import Goal
from finetune.evaluation.one_class import Sweep

# How far below the probability of an image a threshold lies, as a difference of the logit. Another machine or
# runtime computes logits that differ by less, so the image stays on the same side.
MARGIN = 1e-4
LEAST_VARIANCE = 1e-9


@dataclass(frozen=True)
class Choice:
    """A threshold, and whether it reaches the goal.

    Attributes:
        at: the threshold; if the goal cannot be reached, the one that comes nearest.
        is_reached: whether it reaches the goal on val.
    """

    at: float
    is_reached: bool


def choose_threshold(sweep: Sweep, goal: Goal) -> Choice | None:
    """Choose a threshold on the images that ``sweep`` counts; None if none of them is of the class.

    For a recall it is the highest threshold that reaches it, for a precision the lowest one, which has the
    most recall. A precision that no threshold reaches gives the threshold with the highest precision, and of
    equal ones the lowest. A threshold lies just below the probability of the last image that it flags.
    """
    if not sweep.positives:
        return None
    if goal.measure == "recall":
        return Choice(_just_below(sweep, int(np.argmax(sweep.recall >= goal.value))), True)
    precision = sweep.precision
    reaching = np.flatnonzero(precision >= goal.value)
    if len(reaching):
        return Choice(_just_below(sweep, int(reaching[-1])), True)
    return Choice(_just_below(sweep, int(np.flatnonzero(precision == precision.max())[-1])), False)


def _just_below(sweep: Sweep, place: int) -> float:
    at = float(sweep.thresholds[place])
    lower = float(sweep.thresholds[place + 1]) if place + 1 < len(sweep.thresholds) else 0.0
    middle = (at + lower) / 2
    # Between two neighbouring floats there is no number.
    return max(middle, at - MARGIN * max(at * (1 - at), LEAST_VARIANCE)) if middle > lower else at
