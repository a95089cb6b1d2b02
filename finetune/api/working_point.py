"""Working points as callers ask for them: checked, chosen on val, kept with a run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import RunDirError, UserError, printable
from finetune.recipe.catalog import suggest
from finetune.training.run.files import WORKING_POINT

if TYPE_CHECKING:
    from finetune.decision.working_point import Costs, Goal, Threshold, WorkingPoint
    from finetune.evaluation.evaluate import Evaluation
    from finetune.evaluation.working_point import (
        CostRates,
        CostResult,
        Decided,
        ThresholdRates,
        ThresholdResult,
    )
    from finetune.training.trained import Trained

# A YAML file, or {true class: {predicted class: cost}}.
CostsInput = str | os.PathLike[str] | Mapping[str, Mapping[str, float]]
# Classes that a message lists.
SHOWN = 10


@dataclass(frozen=True)
class Wish:
    """What is asked for: a recall or a precision of a class, its threshold, costs; or a class alone."""

    class_name: str | None = None
    recall: float | None = None
    precision: float | None = None
    at: float | None = None
    costs: CostsInput | None = None

    def check(self) -> None:
        """Refuse what contradicts itself, before anything is loaded.

        Raises:
            UserError: a number is out of range, or settings do not go together.
        """
        given = [name for name in ("recall", "precision", "at", "costs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)}: give only one of them.")
        if self.costs is not None and self.class_name is not None:
            raise UserError(
                "costs name all classes: leave out the class, or ask for a recall or precision of it."
            )
        if given and self.costs is None and self.class_name is None:
            raise UserError(f"{given[0]}: name the class that it is about.")
        for name in given:
            value = getattr(self, name)
            if name != "costs":
                _check_fraction(name, value, above_zero=name != "at")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self == Wish()

    def goal(self) -> "Goal | None":
        """The recall or precision that a threshold has to reach on val."""
        from finetune.decision.working_point import Goal

        if self.recall is not None:
            return Goal("recall", self.recall)
        return None if self.precision is None else Goal("precision", self.precision)

    def check_names(self, classes: Sequence[str]) -> None:
        """Refuse classes that the model does not have, and unusable costs.

        Raises:
            UserError: as :meth:`check_class` and :meth:`read_costs`.
        """
        if self.class_name is not None:
            self.check_class(classes)
        if self.costs is not None:
            self.read_costs(classes)

    def check_class(self, classes: Sequence[str]) -> str:
        """Return the class that is asked for.

        Raises:
            UserError: the model does not have it.
        """
        name = self.class_name
        if name is None or name not in classes:
            shown = ", ".join(map(repr, classes[:SHOWN])) + (", …" if len(classes) > SHOWN else "")
            hint = suggest(str(name), classes) or f" The classes are {printable(shown)}."
            raise UserError(f"unknown class {printable(repr(name))}.{hint}")
        return name

    def read_costs(self, classes: Sequence[str]) -> "Costs":
        """Read the costs that are asked for.

        Raises:
            UserError: they cannot be read; all their faults.
        """
        from finetune.decision.costs_file import costs_from, read_costs

        assert self.costs is not None
        if isinstance(self.costs, Mapping):
            return costs_from(self.costs, classes)
        return read_costs(Path(self.costs), classes)


def _check_fraction(name: str, value: float, *, above_zero: bool) -> None:
    if 0 <= value <= 1 and not (above_zero and value == 0):
        return
    hint = f" For {value:g} % write {value / 100:g}." if 1 < value <= 100 else ""
    low = "above 0 and at most 1" if above_zero else "from 0 to 1"
    raise UserError(f"{name} {value:g}: must be a fraction {low}.{hint}")


def measure(
    trained: "Trained", evaluation: "Evaluation", wish: Wish
) -> "ThresholdResult | CostResult | None":
    """Measure what is asked for on an evaluation; if nothing is, what the run keeps, or else None.

    Raises:
        UserError: as the methods of :class:`Wish`.
        DataError: the checkpoint keeps no logits of val, and its images are not found.
    """
    from finetune.training.working_points import measure_costs, measure_goal, measure_kept

    wish.check()
    classes = trained.card.classes
    if wish.is_empty:
        return measure_kept(trained, evaluation)
    if wish.costs is not None:
        return measure_costs(trained, evaluation, wish.read_costs(classes))
    return measure_goal(trained, evaluation, wish.check_class(classes), wish.goal())


@dataclass(frozen=True)
class KeptWorkingPoint:
    """The working point that a run keeps.

    Attributes:
        path: its file.
        point: the threshold or the costs.
        val: what it does on val.
    """

    path: Path
    point: "WorkingPoint"
    val: "ThresholdRates | CostRates"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every number finite."""
        return {"file": str(self.path), "working_point": self.point.to_dict(), "val": self.val.to_dict()}


def kept_by(trained: "Trained") -> KeptWorkingPoint | None:
    """The working point that a run keeps and applies, measured on val; None if there is none."""
    from finetune.training.working_points import decided_on_val

    point = trained.card.decision.working_point
    if point is None:
        return None
    return KeptWorkingPoint(trained.run / WORKING_POINT, point, decided_on_val(trained).rates(point))


def keep(trained: "Trained", wish: Wish) -> "tuple[KeptWorkingPoint, Trained]":
    """Choose a working point on val and keep it with the run, in place of any other.

    Returns:
        The working point, and the network with it.

    Raises:
        RunDirError: the run is not finished, or it is not its best checkpoint that is loaded.
        UserError: as the methods of :class:`Wish`; or no threshold reaches the goal on val.
        SaveError: the disk is full or failing.
    """
    from finetune.reporting.finished import is_finished
    from finetune.training.run.kept_point import KeptPoint, weights_of, write_kept_point
    from finetune.training.working_points import decided_on_val

    wish.check()
    where, classes = printable(trained.run), trained.card.classes
    if trained.checkpoint != "best":
        raise RunDirError(f"{where}: a working point belongs to the best checkpoint; load that one.")
    if not is_finished(trained.run):
        raise RunDirError(
            f"{where}: its training is not finished, and its best checkpoint may still change. Finish it "
            f"with: finetune train {where}/recipe.yaml --run-dir {where} --resume"
        )
    if wish.costs is None:
        wish.check_class(classes)
    costs = None if wish.costs is None else wish.read_costs(classes)
    val = decided_on_val(trained)
    point = costs or _threshold(wish, val)
    rates = val.rates(point)
    card = trained.card
    kept = KeptPoint(
        point, weights_of(trained.folder), card.decision.calibration.temperature, rates.to_dict()
    )
    path = write_kept_point(trained.run, kept)
    decided = replace(trained, card=replace(card, decision=replace(card.decision, working_point=point)))
    return KeptWorkingPoint(path, point, rates), decided


def _threshold(wish: Wish, val: "Decided") -> "Threshold":
    from finetune.decision.working_point import Threshold, in_percent
    from finetune.evaluation.working_point import ThresholdRates, threshold_for

    assert wish.class_name is not None
    goal = wish.goal()
    if goal is None:
        if wish.at is None:
            raise UserError("give a recall, a precision or a threshold (at) of the class.")
        return Threshold(wish.class_name, wish.at)
    name = printable(wish.class_name)
    point, is_reached = threshold_for(val, wish.class_name, goal)
    if point is None:
        raise UserError(f"val has no image of '{name}', so no threshold can be chosen. Give one (at).")
    if not is_reached:
        rates = ThresholdRates.of(val, point)
        assert rates.precision is not None
        assert rates.recall is not None
        raise UserError(
            f"no threshold of '{name}' reaches a {goal.in_words} on val. The best is "
            f"{100 * rates.precision.value:.1f} %, from {in_percent(point.at)} on, with a recall of "
            f"{100 * rates.recall.value:.1f} %. Ask for less."
        )
    return point
