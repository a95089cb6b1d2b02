"""Working points: how a class is decided from calibrated probabilities, where not the most probable one is.

A threshold serves one class against the rest: "miss at most 5 % of the malignant ones". Costs serve all
classes: the decided class has the least expected cost (Elkan 2001, "The Foundations of Cost-Sensitive
Learning").
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from finetune.errors import printable

Measure = Literal["recall", "precision"]
# What a mistake costs that nobody has named.
USUAL_COST = 1.0
# Costs that a sentence names.
NAMED_SHOWN = 3


@dataclass(frozen=True)
class Goal:
    """What a threshold has to reach on val: a recall or a precision of at least ``value``, above 0 to 1."""

    measure: Measure
    value: float

    @property
    def in_words(self) -> str:
        """``recall of at least 95 %``."""
        return f"{self.measure} of at least {100 * self.value:.6g} %"


@dataclass(frozen=True)
class Threshold:
    """A class is decided where its probability is at least ``at``; otherwise the most probable of the others.

    Attributes:
        class_name: the class.
        at: 0 to 1.
        goal: what the threshold was chosen for on val; None if it was given.
    """

    class_name: str
    at: float
    goal: Goal | None = None

    def decide(self, probabilities: NDArray[np.float64], classes: Sequence[str]) -> NDArray[np.intp]:
        """Return the (N,) decided classes of (N, C) probabilities, as indices into ``classes``."""
        place = classes.index(self.class_name)
        others = probabilities.copy()
        others[:, place] = -1.0
        return np.where(probabilities[:, place] >= self.at, place, others.argmax(axis=1))

    @property
    def in_words(self) -> str:
        """What is decided: ``'malignant' from 12.3 % on``."""
        return f"'{printable(self.class_name)}' from {in_percent(self.at)} on"

    def check(self, classes: Sequence[str]) -> None:
        """Raise ValueError if the classes do not include the threshold's."""
        if self.class_name not in classes:
            raise ValueError(f"{self.class_name!r} is none of the classes")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :func:`read_working_point` reads it back."""
        found: dict[str, Any] = {"class": self.class_name, "threshold": self.at}
        return found if self.goal is None else found | {"goal": {self.goal.measure: self.goal.value}}


@dataclass(frozen=True)
class Costs:
    """The class of the least expected cost is decided; of equal ones, the first in the order of the logits.

    Attributes:
        named: (true class, predicted class, cost) of the pairs that have a cost of their own. A right answer
            costs 0 and any other pair 1, unless it is named.
    """

    named: tuple[tuple[str, str, float], ...]

    def __post_init__(self) -> None:
        # In one order, so that equal costs are equal objects and give the same bytes.
        object.__setattr__(self, "named", tuple(sorted(self.named)))

    def matrix(self, classes: Sequence[str]) -> NDArray[np.float64]:
        """Return the (C, C) costs: rows are true classes, columns predicted ones."""
        place = {name: index for index, name in enumerate(classes)}
        costs = USUAL_COST * (1 - np.eye(len(classes)))
        for true, predicted, cost in self.named:
            costs[place[true], place[predicted]] = cost
        return costs

    def decide(self, probabilities: NDArray[np.float64], classes: Sequence[str]) -> NDArray[np.intp]:
        """Return the (N,) decided classes of (N, C) probabilities, as indices into ``classes``."""
        return np.asarray((probabilities @ self.matrix(classes)).argmin(axis=1))

    @property
    def in_words(self) -> str:
        """How it is decided, with the first named costs."""
        named = [f"'{printable(a)}' taken for '{printable(b)}' costs {cost:g}" for a, b, cost in self.named]
        more = f", and {len(named) - NAMED_SHOWN} more" if len(named) > NAMED_SHOWN else ""
        return f"by the least expected cost: {', '.join(named[:NAMED_SHOWN]) or 'all mistakes cost 1'}{more}"

    def check(self, classes: Sequence[str]) -> None:
        """Raise ValueError if a pair names a class that ``classes`` does not have."""
        for name in (name for true, predicted, _ in self.named for name in (true, predicted)):
            if name not in classes:
                raise ValueError(f"{name!r} is none of the classes")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :func:`read_working_point` reads it back."""
        costs: dict[str, dict[str, float]] = {}
        for true, predicted, cost in self.named:
            costs.setdefault(true, {})[predicted] = cost
        return {"costs": costs}


WorkingPoint = Threshold | Costs


def read_working_point(value: Any) -> WorkingPoint | None:
    """Read the result of ``to_dict``; None stays None.

    Raises:
        ValueError: an entry is missing, has the wrong type or is out of range.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping")
    if "costs" in value:
        return Costs(_named_costs(value["costs"]))
    name, at = value.get("class"), value.get("threshold")
    if not isinstance(name, str):
        raise ValueError("class must be the name of a class")
    if not is_number(at) or not 0 <= at <= 1:
        raise ValueError(f"threshold must be a number from 0 to 1, not {at!r}")
    return Threshold(name, float(at), _goal(value.get("goal")))


def in_percent(probability: float) -> str:
    """Write a threshold with three digits of its distance from 0 or 1: ``12.3 %``, ``99.99870 %``."""
    if probability <= 0.5:
        return f"{100 * probability:#.3g} %" if probability else "0 %"
    rest = 1 - probability
    decimals = -math.floor(math.log10(rest)) if rest > 0 else 0
    return f"{100 * probability:.{max(decimals, 1) if rest > 0 else 0}f} %"


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number; true and false are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _goal(value: Any) -> Goal | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError("goal must be a recall or a precision")
    ((measure, number),) = value.items()
    if measure not in ("recall", "precision") or not is_number(number) or not 0 < number <= 1:
        raise ValueError("goal must be a recall or a precision from 0 to 1")
    return Goal(measure, float(number))


def _named_costs(value: Any) -> tuple[tuple[str, str, float], ...]:
    if not isinstance(value, Mapping):
        raise ValueError("costs must be a mapping of true classes")
    named = []
    for true, row in value.items():
        if not isinstance(row, Mapping):
            raise ValueError("costs must map each true class to predicted classes")
        for predicted, cost in row.items():
            if not is_number(cost) or cost < 0:
                raise ValueError(f"a cost must be a number from 0, not {cost!r}")
            named.append((true, predicted, float(cost)))
    return tuple(named)
