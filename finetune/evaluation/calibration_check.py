"""How far probabilities are from how often they are right, before and after the temperature. Torch-free."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.calibration import Calibration
from finetune.decision.probabilities import surprise
from finetune.evaluation.metrics import calibration_error
from finetune.evaluation.resampling import interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.3f} to {self.high:.3f}]"

    def entries(self, name: str) -> dict[str, float]:
        """JSON-ready: ``name``, ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True)
class CalibrationCheck:
    """The expected calibration error of one network on one set of images.

    Attributes:
        calibration: of the network; None for several networks, each with its own.
        before: the error with a temperature of 1; None for several networks.
        after: the error with the temperature.
    """

    calibration: Calibration | None
    before: Estimate | None
    after: Estimate

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: ``ece`` with its interval, and, for one network, ``ece_before`` and the temperature."""
        found = self.after.entries("ece")
        if self.before is not None:
            found |= self.before.entries("ece_before")
        if self.calibration is not None:
            found |= self.calibration.to_dict() | {"in_words": self.calibration.in_words}
        return found


def check_calibration(
    logits: NDArray[np.float32],
    targets: NDArray[np.integer],
    calibration: Calibration | None,
    groups: NDArray[np.int64] | None = None,
) -> CalibrationCheck:
    """Measure the calibration error, with intervals by resampling images, or whole groups.

    An interval always holds the error itself.

    Args:
        logits: (N, C), as the network computes them; or the calibrated ones of several networks.
        targets: (N,) true class indices.
        calibration: None for several networks.
        groups: (N,) the group of each image; None: images have no groups.
    """
    if calibration is None:
        return CalibrationCheck(None, None, _estimate(logits, targets, groups))
    before = after = _estimate(logits, targets, groups)
    if calibration.temperature != 1.0:
        after = _estimate(calibration.of(logits), targets, groups)
    return CalibrationCheck(calibration, before, after)


def _estimate(
    logits: NDArray[np.float32], targets: NDArray[np.integer], groups: NDArray[np.int64] | None
) -> Estimate:
    confidence, correct = np.exp(-surprise(logits).min(axis=1)), logits.argmax(axis=1) == targets
    error = partial(_error, confidence, correct)
    value = error(np.arange(len(targets)))
    low, high = interval(error, len(targets), groups)
    return Estimate(value, min(low, value), max(high, value))


def _error(confidence: Floats, correct: NDArray[np.bool_], rows: NDArray[np.int64]) -> float:
    return calibration_error(confidence[rows], correct[rows])
