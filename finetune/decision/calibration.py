"""Temperature scaling: probabilities that say how often they are right (Guo et al. 2017, "On Calibration of
Modern Neural Networks").

The logits of a network are divided by one number, its temperature. Above 1 it makes probabilities less sure,
below 1 surer. The predicted class does not change.

A few images say little about the temperature. Three things guard against what they happen to say;
``docs/measured/calibration.md`` has what they gain:

- Temperatures near 1 are likelier: the prior of log T is normal, with a standard deviation of 0.5.
- Half an image more counts, of which every class is as likely. Otherwise a val on which every prediction is
  right would ask for probabilities of 1.
- The temperature stays 1 unless another one is better by a likelihood-ratio test at 5 % (Wilks 1938).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import surprise

# Temperatures beyond these come from broken data, not from a network.
LEAST, GREATEST = 0.05, 20.0
# Of the prior of log T.
PRIOR_DEVIATION = 0.5
# Images more that count, of which every class is as likely.
UNKNOWN = 0.5
# The gain in log-likelihood, in nats, that another temperature than 1 has to reach: half the 95 % quantile of
# the chi-squared distribution with one degree of freedom.
LEAST_GAIN = 1.92
# Below this number of images, no gain is the fault of val rather than a merit of the network.
SMALL_VAL = 200
NOT_WANTED = "the recipe does not ask for it"


@dataclass(frozen=True)
class Calibration:
    """The temperature of a network, and where it comes from.

    Attributes:
        temperature: what logits are divided by, 0.05 to 20; 1 leaves them as they are.
        split: the images it was fitted on: ``val``; empty if none was fitted.
        n: their number.
        reason: why the temperature was left at 1; empty if it was fitted, or if nobody looked.
    """

    temperature: float = 1.0
    split: str = ""
    n: int = 0
    reason: str = ""

    @property
    def in_words(self) -> str:
        """The temperature and where it comes from, as one phrase."""
        if self.reason:
            return f"1, left alone: {self.reason}"
        if not self.split:
            return "none: this checkpoint is `last`, of an unfinished run or of an earlier version"
        return f"{self.temperature:.3g}, fitted on the {self.n:,} images of {self.split}"

    def of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Divide (N, C) logits by the temperature. With a temperature of 1 they are returned as they are."""
        return logits if self.temperature == 1.0 else logits / np.float32(self.temperature)

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
        reason = value.get("reason", "")
        if not isinstance(reason, str):
            raise ValueError("reason must be a text")
        return cls(float(temperature), split, n, reason)


def calibrate(
    logits: NDArray[np.floating], targets: NDArray[np.integer], groups: NDArray[np.integer] | None = None
) -> Calibration:
    """Fit the temperature on val, or leave it at 1 where val shows no gain.

    Args:
        logits: (N, C) of images that the network was not trained on.
        targets: (N,) their classes.
        groups: (N,) the group of each image. A group counts as one image: its images are alike.
    """
    n = len(targets)
    units = n if groups is None else len(np.unique(groups))
    temperature, gain = fit_temperature(logits, targets, units)
    if gain >= LEAST_GAIN:
        return Calibration(temperature, "val", n)
    counted = f"{n:,} images" if groups is None else f"{n:,} images in {units:,} groups"
    if units < SMALL_VAL:
        reason = f"val ({counted}) is too small to show that another temperature is better"
    else:
        reason = f"on val ({counted}) no other temperature is clearly better"
    return Calibration(reason=reason)


def fit_temperature(
    logits: NDArray[np.floating], targets: NDArray[np.integer], units: int | None = None
) -> tuple[float, float]:
    """Return the most probable temperature, and its gain in log-likelihood over a temperature of 1, in nats.

    Args:
        logits: (N, C).
        targets: (N,) their classes.
        units: the independent observations that the N images count as; None: N.
    """
    from scipy.optimize import minimize_scalar

    rows, count = np.arange(len(targets)), len(targets) if units is None else units
    share = UNKNOWN / (count + UNKNOWN)

    def loss(log_temperature: float) -> float:
        surprises = surprise(logits / math.exp(log_temperature))
        of_images, of_unknown = surprises[rows, targets].mean(), surprises.mean()
        return float(((1 - share) * of_images + share * of_unknown) * (count + UNKNOWN))

    def objective(log_temperature: float) -> float:
        return loss(log_temperature) + (log_temperature / PRIOR_DEVIATION) ** 2 / 2

    bounds = (math.log(LEAST), math.log(GREATEST))
    found = minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x), loss(0.0) - loss(found.x)
