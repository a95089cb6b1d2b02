"""The mean and spread of repeated results, and an interval of the mean."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import t

# The least number of values for an interval. With two, it would be 13 standard errors to either side.
FEWEST = 3


@dataclass(frozen=True)
class Spread:
    """The mean, range and sample standard deviation of ``n`` values, and the 95 % interval of the mean.

    The deviation is None for a single value, and the interval is None for fewer than ``FEWEST`` values.
    """

    n: int
    mean: float
    low: float
    high: float
    deviation: float | None
    mean_low: float | None
    mean_high: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON-ready."""
        return asdict(self)

    def interval(self, what: str) -> str:
        """Format as ``95 % interval of the mean [90.4 to 95.8]``, or say that there are too few ``what``."""
        if self.mean_low is None or self.mean_high is None:
            return f"too few {what} for an interval of the mean (it takes {FEWEST})"
        low, high = 100 * max(self.mean_low, 0.0), 100 * min(self.mean_high, 1.0)
        return f"95 % interval of the mean [{low:.1f} to {high:.1f}]"


def of_repeats(values: Sequence[float]) -> Spread:
    """Summarise independent values, such as results with several seeds, with Student's t interval."""
    return _spread(values, 1 / max(len(values), 1))


def of_folds(values: Sequence[float]) -> Spread:
    """Summarise the folds of one cross-validation, with the corrected t interval of Nadeau and Bengio (2003).

    Folds share most of their training images, so their results vary less than results on new data would, and
    Student's interval is too narrow. There is no unbiased estimate (Bengio and Grandvalet 2004). The
    correction replaces 1/k by 1/k + n_held/n_train, which is 1/k + 1/(k - 1). The interval is conservative.
    """
    k = len(values)
    return _spread(values, 1 / k + 1 / (k - 1) if k > 1 else 1.0)


def _spread(values: Sequence[float], share: float) -> Spread:
    """``share`` is the variance of the mean relative to the variance of one value."""
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = float(np.mean(values))
    if n == 1:
        return Spread(1, mean, mean, mean, None, None, None)
    deviation = float(np.std(values, ddof=1))
    if n < FEWEST:
        return Spread(n, mean, min(values), max(values), deviation, None, None)
    half = float(t.ppf(0.975, n - 1)) * deviation * math.sqrt(share)
    return Spread(n, mean, min(values), max(values), deviation, mean - half, mean + half)
