"""Everything that is made of a network's logits, in one object. The card of a checkpoint and of an exported
file holds it, so that a run and its exports decide alike."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.calibration import Calibration, calibrated
from finetune.decision.probabilities import softmax


@dataclass(frozen=True)
class Decision:
    """What is made of a network's logits.

    Attributes:
        calibration: turns logits into probabilities.
    """

    calibration: Calibration = field(default_factory=Calibration)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute calibrated probabilities of (N, C) logits; each row sums to 1."""
        return softmax(calibrated(logits, self.calibration.temperature))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` reads it back."""
        return {"calibration": self.calibration.to_dict()}

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
        try:
            return cls(Calibration.from_dict(value.get("calibration")))
        except ValueError as error:
            raise ValueError(f"calibration: {error}") from None
