"""Several numbers that mean the same -> their mean, how far they lie apart, and an interval of the mean."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import t

# Fewer numbers have no interval: that of two is 13 standard errors to either side, and says nothing.
FEWEST = 3


@dataclass(frozen=True)
class Spread:
    """Of ``n`` repeats: mean, standard deviation (of a sample), smallest and largest, and the 95 % interval
    of the mean.

    With one repeat nothing is known of the deviation, and with fewer than ``FEWEST`` hardly anything of the
    interval; it is then None.
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
        """``95 % interval of the mean [90.4 to 95.8]``, or that there are too few ``what``: runs, folds."""
        if self.mean_low is None or self.mean_high is None:
            return f"too few {what} for an interval of the mean (it takes {FEWEST})"
        low, high = 100 * max(self.mean_low, 0.0), 100 * min(self.mean_high, 1.0)
        return f"95 % interval of the mean [{low:.1f} to {high:.1f}]"


def of_repeats(values: Sequence[float]) -> Spread:
    """Of repeats that do not depend on each other, such as runs under several seeds: Student's t."""
    return _spread(values, 1 / max(len(values), 1))


def of_folds(values: Sequence[float]) -> Spread:
    """Of the folds of one cross-validation, by the corrected t interval of Nadeau and Bengio (2003).

    Folds share most of their training images, so their numbers vary less than those of new data would, and
    Student's interval is too narrow; there is no unbiased estimate (Bengio and Grandvalet 2004). The
    correction puts 1/k + n_held/n_train, which is 1/k + 1/(k - 1), in place of 1/k: wide, and on the safe
    side.
    """
    k = len(values)
    return _spread(values, 1 / k + 1 / (k - 1) if k > 1 else 1.0)


def _spread(values: Sequence[float], share: float) -> Spread:
    """``share``: of the variance of one value, that which is in the mean of all."""
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
