"""Everything that is made of a network's logits, in one object. The card of a checkpoint and of an exported
file holds it, so that a run and its exports decide alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from finetune.decision.abstain import AnswerRule, Answers, no_rule, read_answers
from finetune.decision.calibration import Calibration
from finetune.decision.conformal import Conformal, SetRule, read_conformal
from finetune.decision.novelty import Novelty, read_novelty
from finetune.decision.probabilities import softmax
from finetune.decision.wanted import ALL, Wanted
from finetune.decision.working_point import WorkingPoint, read_working_point
from finetune.errors import UserError, printable

T = TypeVar("T")


@dataclass(frozen=True)
class Rules:
    """What a caller wants of each prediction, as thresholds.

    Attributes:
        wanted: what they were made for.
        sets: the prediction sets; None: not wanted.
        answers: which images are answered; None: all.
    """

    wanted: Wanted = ALL
    sets: SetRule | None = None
    answers: AnswerRule | None = None


@dataclass(frozen=True)
class Decision:
    """What is made of a network's logits.

    Attributes:
        calibration: turns logits into probabilities.
        working_point: decides a class by a threshold or by costs; None decides the most probable one.
        conformal: the scores of val that prediction sets come from; None: the model keeps none.
        answers: how sure the network is on val, and where it is right; None: the model keeps none.
        novelty: which images are unlike the training images; None: the model does not know.
    """

    calibration: Calibration = field(default_factory=Calibration)
    working_point: WorkingPoint | None = None
    conformal: Conformal | None = None
    answers: Answers | None = None
    novelty: Novelty | None = None

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute calibrated probabilities of (N, C) logits; each row sums to 1."""
        return softmax(self.calibrated(logits))

    def calibrated(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Divide (N, C) logits by the temperature."""
        return self.calibration.of(logits)

    def rules(self, wanted: Wanted) -> Rules:
        """Find the thresholds for what a caller wants.

        Raises:
            UserError: the model keeps nothing that they could come from, or nothing on val speaks for them.
        """
        sets = answers = None
        if wanted.coverage is not None:
            sets = self.scores().rule(wanted.coverage, wanted.sets)
        if wanted.abstain is not None:
            kept = self.kept_answers()
            answers = kept.rule(wanted.abstain)
            if answers is None:
                raise no_rule(wanted.abstain, kept.surprises.n)
        return Rules(wanted, sets, answers)

    def scores(self) -> Conformal:
        """The scores that prediction sets come from.

        Raises:
            UserError: the model keeps none.
        """
        if self.conformal is None:
            raise _keeps_nothing("coverage")
        return self.conformal

    def kept_answers(self) -> Answers:
        """How sure the network is on val, and where it is right.

        Raises:
            UserError: the model does not keep it.
        """
        if self.answers is None:
            raise _keeps_nothing("abstain")
        return self.answers

    def promises(self, wanted: Wanted, classes: tuple[str, ...]) -> list[str]:
        """Say in plain words what is promised of what a caller wants. Raises as :meth:`rules`."""
        rules, found = self.rules(wanted), []
        if wanted.coverage is not None:
            names = tuple(map(printable, classes))
            found.append(self.scores().guarantee(wanted.coverage, wanted.sets, names))
        if wanted.abstain is not None and rules.answers is not None:
            found.append(rules.answers.in_words(wanted.abstain))
        return found

    def check(self, classes: Sequence[str]) -> None:
        """Raise ValueError if something was decided about a class that ``classes`` does not have."""
        if self.working_point is not None:
            try:
                self.working_point.check(classes)
            except ValueError as error:
                raise ValueError(f"working_point: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` reads it back."""
        found = {
            "calibration": self.calibration,
            "working_point": self.working_point,
            "conformal": self.conformal,
            "answers": self.answers,
            "novelty": self.novelty,
        }
        return {name: part.to_dict() for name, part in found.items() if part is not None}

    @classmethod
    def from_dict(cls, value: Any) -> "Decision":
        """Read the result of :meth:`to_dict`; None, from older versions, means that nothing was decided.

        Raises:
            ValueError: an entry is missing, has the wrong type or is out of range.
        """
        if value is None:
            return cls()
        if not isinstance(value, dict):
            raise ValueError("must be a mapping")
        return cls(
            _read("calibration", Calibration.from_dict, value),
            _read("working_point", read_working_point, value),
            _read("conformal", read_conformal, value),
            _read("answers", read_answers, value),
            _read("novelty", read_novelty, value),
        )


def _read(name: str, read: Callable[[Any], T], value: dict[str, Any]) -> T:
    try:
        return read(value.get(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _keeps_nothing(setting: str) -> UserError:
    return UserError(
        f"{setting}: this model keeps no scores of val, from which {setting} comes. It is the checkpoint "
        "`last`, or of an earlier version: use the checkpoint `best` of a finished run, or train again."
    )
