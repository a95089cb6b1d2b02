"""What a caller wants of a prediction, beyond the probabilities."""

from dataclasses import dataclass
from typing import Literal

from finetune.errors import UserError

Sets = Literal["smallest", "adaptive", "per-class"]
SETS: tuple[Sets, ...] = ("smallest", "adaptive", "per-class")


@dataclass(frozen=True)
class Wanted:
    """What a caller wants of a prediction.

    Attributes:
        top: classes per prediction; None: all.
        coverage: the share of images whose true class is to be in their prediction set, above 0 and below 1;
            None: no sets.
        sets: which prediction sets: ``smallest``, ``adaptive`` or ``per-class``
            (:mod:`finetune.decision.conformal`).
        abstain: the accuracy that the answered images are to reach, above 0 and below 1; None: answer all
            (:mod:`finetune.decision.abstain`).

    Raises:
        UserError: ``coverage``, ``sets`` or ``abstain`` is out of range.
    """

    top: int | None = None
    coverage: float | None = None
    sets: Sets = "smallest"
    abstain: float | None = None

    def __post_init__(self) -> None:
        check_share("coverage", self.coverage)
        if self.sets not in SETS:
            raise UserError(f"sets: {self.sets!r} is not one of {', '.join(SETS)}.")
        check_share("abstain", self.abstain)


def check_share(name: str, value: float | None) -> None:
    """Check that a share is above 0 and below 1, or None.

    Raises:
        UserError: it is not. ``name`` is the setting.
    """
    if value is None or 0 < value < 1:
        return
    hint = f" For {value:g} % write {value / 100:g}." if 1 < value < 100 else ""
    raise UserError(f"{name}: {value:g} is not a share above 0 and below 1.{hint}")


ALL = Wanted()
