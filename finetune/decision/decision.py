"""Everything that is made of a network's logits, in one object. The card of a checkpoint and of an exported
file holds it, so that a run and its exports decide alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from finetune.decision.calibration import Calibration, calibrated
from finetune.decision.probabilities import softmax
from finetune.decision.working_point import WorkingPoint, read_working_point

T = TypeVar("T")


@dataclass(frozen=True)
class Decision:
    """What is made of a network's logits.

    Attributes:
        calibration: turns logits into probabilities.
        working_point: decides a class by a threshold or by costs; None decides the most probable one.
    """

    calibration: Calibration = field(default_factory=Calibration)
    working_point: WorkingPoint | None = None

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute calibrated probabilities of (N, C) logits; each row sums to 1."""
        return softmax(calibrated(logits, self.calibration.temperature))

    def check(self, classes: Sequence[str]) -> None:
        """Raise ValueError if something was decided about a class that ``classes`` does not have."""
        if self.working_point is not None:
            try:
                self.working_point.check(classes)
            except ValueError as error:
                raise ValueError(f"working_point: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` reads it back."""
        point = self.working_point
        found = {"calibration": self.calibration.to_dict()}
        return found if point is None else found | {"working_point": point.to_dict()}

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
        )


def _read(name: str, read: Callable[[Any], T], value: dict[str, Any]) -> T:
    try:
        return read(value.get(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
