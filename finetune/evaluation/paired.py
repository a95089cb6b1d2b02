"""Compare two networks on the same images: which one is better, and by how much."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

LEVEL = 0.95
# Random signs, where there are too many groups to try all.
SIGNINGS = 2000
MOST_ENUMERATED = 11
CHUNK = 200


@dataclass(frozen=True)
class Paired:
    """The second network compared with the first, on the same ``n`` images.

    Attributes:
        difference: the accuracy of the second minus that of the first, a fraction.
        low, high: the 95 % interval of the difference: :func:`difference_interval`, or
            :func:`grouped_difference_interval` where images have groups.
        only_first, only_second: the number of images that only this network classifies correctly.
        p: the p-value of McNemar's exact test (:func:`mcnemar`), or of the sign-flip test
            (:func:`sign_flip`) where images have groups.
        groups: the number of groups; None if images have no groups.
    """

    n: int
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float
    groups: int | None = None

    @property
    def test(self) -> str:
        """The name of the test that ``p`` is of."""
        return test_name(self.groups)


def test_name(groups: int | None) -> str:
    """Name the test of a comparison: by images, or by groups."""
    return "McNemar" if groups is None else "sign-flip"


def paired(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> Paired:
    """Compare two networks by their correct predictions: (N,) each, for the same images in the same order.

    Args:
        groups: (N,) the group of each image; None if images have no groups.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} images")
    n, only_first, only_second = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    difference = (only_second - only_first) / n
    if groups is None:
        p, interval = mcnemar(only_first, only_second), difference_interval(only_first, only_second, n)
        return Paired(n, difference, *interval, only_first, only_second, p)
    sums, sizes = _by_group(first, second, groups)
    interval = grouped_difference_interval(first, second, groups)
    return Paired(n, difference, *interval, only_first, only_second, sign_flip(sums), len(sizes))


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the p-value of McNemar's exact test (two-sided; McNemar 1947).

    It is the probability that two equally good networks disagree at least this unevenly. Only images that
    exactly one network classifies correctly count. The value is 1 if there are none.
    """
    disagreements = only_first + only_second
    return float(binomtest(only_first, disagreements, 0.5).pvalue) if disagreements else 1.0


def sign_flip(sums: NDArray[np.int64]) -> float:
    """Compute the p-value of the exact sign-flip test (two-sided; Fisher 1935, Pitman 1937).

    If two networks are equally good, each could as well have the other's results on a whole group. The value
    is the probability that random signs of the groups' sums make a total at least as far from 0. Where each
    group is one image, it is McNemar's exact test. Groups on which both are right equally often do not count.

    Args:
        sums: (G,) per group, the images that only the second classifies correctly, less those of the first.
    """
    steps = np.abs(sums[sums != 0]).astype(np.int64)
    most = int(steps.sum())
    # The probability of each total from -most to most.
    totals = np.zeros(2 * most + 1)
    totals[most] = 1.0
    reached = 0
    for step in np.sort(steps):
        inside = totals[most - reached : most + reached + 1] / 2
        reached += int(step)
        totals[most - reached : most + reached + 1] = 0.0
        totals[most - reached : most - reached + len(inside)] += inside
        totals[most + reached + 1 - len(inside) : most + reached + 1] += inside
    as_far = np.abs(np.arange(-most, most + 1)) >= abs(int(sums.sum()))
    return min(1.0, float(totals[as_far].sum()))


def difference_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Compute the adjusted Wald interval at 95 % of a difference of paired proportions (Bonett, Price 2012).

    Its coverage is good also for few images or few disagreements, where the plain Wald interval vanishes.
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    difference = second - first
    half = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt((first + second - difference**2) / (n + 2))
    return max(difference - half, -1.0), min(difference + half, 1.0)


def grouped_difference_interval(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Compute the 95 % interval of a difference of paired proportions, by whole groups.

    It holds the differences that the sign-flip test does not refuse at 5 %: of each, the test is about the
    groups' sums less the difference times their images. All signings are tried, or ``SIGNINGS`` random ones
    of many groups; each solves for the difference from which on it is as extreme. Two groups of one image,
    one for each network, are added, as Bonett and Price (2012) add two images. The interval is never narrower
    than that of independent images. ``scripts/group-experiment`` measures its coverage.
    """
    n, only_first, only_second = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    alone = difference_interval(only_first, only_second, n)
    sums, sizes = _by_group(first, second, groups)
    sums, sizes = np.append(sums, [1, -1]), np.append(sizes, [1, 1])
    difference = sums.sum() / sizes.sum()
    rests = sums - difference * sizes
    above, below = [], []
    for signs in _signings(len(sums)):
        rest, images = signs @ rests, signs @ sizes
        same = np.abs(images) == sizes.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = rest / (sizes.sum() + images), rest / (sizes.sum() - images)
        above.append(np.where(same, np.inf, np.maximum(one, -other)))
        below.append(np.where(same, np.inf, np.maximum(-one, other)))
    up, down = (_exceeded(np.concatenate(each)) for each in (above, below))
    low, high = min(alone[0], difference - down), max(alone[1], difference + up)
    return max(float(low), -1.0), min(float(high), 1.0)


def _signings(count: int) -> list[NDArray[np.int64]]:
    """Signs (S, G) in parts: all, or random ones, the same every time."""
    if count <= MOST_ENUMERATED:
        return [((np.arange(2**count)[:, None] >> np.arange(count)) & 1) * 2 - 1]
    rng = np.random.default_rng(0)
    return [rng.integers(0, 2, (CHUNK, count)) * 2 - 1 for _ in range(SIGNINGS // CHUNK)]


def _exceeded(values: NDArray[np.float64]) -> float:
    """The largest of ``values`` that more than 5 % of them reach."""
    return float(np.sort(values)[::-1][math.floor((1 - LEVEL) * len(values))])


def _by_group(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per group: the images that only the second classifies correctly less those of the first, and all."""
    _, place = np.unique(groups, return_inverse=True)
    gains = np.bincount(place, weights=second.astype(np.float64) - first)
    return gains.round().astype(np.int64), np.bincount(place)
