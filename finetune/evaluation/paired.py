"""Compare two networks on the same images: which one is better, and by how much."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm


@dataclass(frozen=True)
class Paired:
    """The second network compared with the first, on the same ``n`` images.

    Attributes:
        difference: the accuracy of the second minus that of the first, a fraction.
        low, high: the 95 % interval of the difference (:func:`difference_interval`).
        only_first, only_second: the number of images that only this network classifies correctly.
        p: the p-value of McNemar's exact test (:func:`mcnemar`).
    """

    n: int
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Compare two networks by their correct predictions: (N,) each, for the same images in the same order."""
    if first.shape != second.shape or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} images")
    n, only_first, only_second = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    difference, p = (only_second - only_first) / n, mcnemar(only_first, only_second)
    return Paired(n, difference, *difference_interval(only_first, only_second, n), only_first, only_second, p)


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the p-value of McNemar's exact test (two-sided; McNemar 1947).

    It is the probability that two equally good networks disagree at least this unevenly. Only images that
    exactly one network classifies correctly count. The value is 1 if there are none.
    """
    disagreements = only_first + only_second
    return float(binomtest(only_first, disagreements, 0.5).pvalue) if disagreements else 1.0


def difference_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Compute the adjusted Wald interval at 95 % of a difference of paired proportions (Bonett, Price 2012).

    Its coverage is good also for few images or few disagreements, where the plain Wald interval vanishes.
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    difference = second - first
    half = float(norm.ppf(0.975)) * math.sqrt((first + second - difference**2) / (n + 2))
    return max(difference - half, -1.0), min(difference + half, 1.0)
