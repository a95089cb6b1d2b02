"""Two networks on the same images: whether one is better, and by how much."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm


@dataclass(frozen=True)
class Paired:
    """The second of two networks against the first, on the same ``n`` images.

    Attributes:
        difference: accuracy of the second less that of the first, a fraction.
        low, high: its 95 % interval, by :func:`difference_interval`.
        only_first, only_second: images that only one of the two has right.
        p: of McNemar's exact test, by :func:`mcnemar`.
    """

    n: int
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float

    def to_dict(self) -> dict[str, float | int]:
        """JSON-ready."""
        return asdict(self)


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Compare two networks by what each has right, (N,) each, image by image in the same order."""
    if first.shape != second.shape or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} images")
    n, only_first, only_second = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    low, high = difference_interval(only_first, only_second, n)
    return Paired(
        n,
        (only_second - only_first) / n,
        low,
        high,
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test (two-sided): the chance that equally good networks disagree so
    unevenly. Only images that one of the two has right count; 1 if there are none.
    """
    disagreements = only_first + only_second
    if disagreements == 0:
        return 1.0
    return float(binomtest(only_first, disagreements, 0.5).pvalue)


def difference_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """The adjusted Wald interval at 95 % of a difference between paired proportions (Bonett and Price 2012).

    It covers well also where there are few images or hardly a disagreement, where the plain Wald interval
    shrinks to nothing.
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    difference = second - first
    half = float(norm.ppf(0.975)) * math.sqrt((first + second - difference**2) / (n + 2))
    return max(difference - half, -1.0), min(difference + half, 1.0)
