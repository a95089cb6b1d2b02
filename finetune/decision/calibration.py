"""Temperature scaling: probabilities that say how often they are right (Guo et al. 2017).

The logits of a network are divided by one number, its temperature. Above 1 it makes probabilities less sure,
below 1 surer. The predicted class does not change.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import log_softmax

# Temperatures beyond these come from broken data, not from a network.
LEAST, GREATEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """The temperature of a network, and where it comes from.

    Attributes:
        temperature: what logits are divided by, 0.05 to 20; 1 leaves them as they are.
        split: the images it was fitted on: ``val``; empty if it was not fitted.
        n: their number.
    """

    temperature: float = 1.0
    split: str = ""
    n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> "Calibration":
        """Read the result of :meth:`to_dict`.

        Raises:
            ValueError: an entry is missing, has the wrong type or is out of range.
        """
        if not isinstance(value, dict):
            raise ValueError("must be a mapping")
        temperature, split, n = value.get("temperature"), value.get("split"), value.get("n")
        if not isinstance(temperature, float | int) or not LEAST <= temperature <= GREATEST:
            raise ValueError(f"temperature must be from {LEAST} to {GREATEST}, not {temperature!r}")
        if not isinstance(split, str) or not isinstance(n, int) or n < 0:
            raise ValueError("split must be a text and n a number of images")
        return cls(float(temperature), split, n)


def calibrated(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Divide (N, C) logits by the temperature. With a temperature of 1 they are returned as they are."""
    return logits if temperature == 1.0 else logits / np.float32(temperature)


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """Return the temperature with the least negative log-likelihood, from 0.05 to 20.

    Args:
        logits: (N, C) of images that the network was not trained on.
        targets: (N,) their classes.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / math.exp(log_temperature))[rows, targets].mean())

    bounds = (math.log(LEAST), math.log(GREATEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(math.exp(found.x))
