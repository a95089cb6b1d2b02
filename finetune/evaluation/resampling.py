"""Intervals from N rows: of shares in closed form, of other statistics by resampling; by rows or by groups.

Images of one group (a patient, a scene) are not independent: N images in G groups say less than N images of
N groups. With groups, these intervals count groups.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
# With fewer groups, an interval is a guess: the spread of groups is estimated from too few.
FEWEST_GROUPS = 5
# With fewer groups, no p-value of the sign-flip test is below 0.05: it is at least 2 of 2^G signings.
FEWEST_TO_DIFFER = 6
# The weight of the assumption that all images of a group are right or wrong at once, in groups.
PRIOR_GROUPS = 0.5
LEVEL = 0.95


def wilson(correct: float, n: float, quantile: float | None = None) -> tuple[float, float]:
    """Wilson's score interval at 95 % for ``correct`` of ``n``, as fractions (Wilson 1927).

    Unlike the normal approximation, it stays between 0 and 1 and has a width at 0 and at ``n`` correct.

    Args:
        quantile: of the distribution of the estimate in standard errors; None: the normal one, 1.96.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2) if quantile is None else quantile
    share, spread = correct / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # Rounding may miss an exact 0 or 1.
    low = 0.0 if correct == 0 else centre - half
    return low, 1.0 if correct == n else centre + half


def share_interval(hits: NDArray[np.bool_], groups: Rows | None = None) -> tuple[float, float]:
    """Return the 95 % interval of the share of true rows, as fractions; it contains the share.

    Without groups, it is Wilson's. With groups, it is Wilson's of fewer images, N / d, with Student's t of
    G - 1 degrees of freedom (Korn, Graubard 1998; Franco, Little, Louis, Slud 2019). d is the design effect
    (Kish 1965): the variance of the share over that of N independent images. The variance is that of the
    jackknife, which leaves out one group at a time, and d is at least 1. Few groups with a mistake, or few
    with a hit, cannot show how alike the images of a group are. So d is drawn to its value where all images
    of a group are right or wrong at once, by a weight of ``PRIOR_GROUPS``. The fewer there are,
    the wider is the interval; ``scripts/group-experiment`` measures its coverage. From one group there is no
    interval: it is 0 to 1.

    Args:
        hits: (N,), at least one.
        groups: (N,) the group of each row.
    """
    n, right = len(hits), int(hits.sum())
    if groups is None:
        return wilson(right, n)
    _, place = np.unique(groups, return_inverse=True)
    sizes = np.asarray(np.bincount(place), dtype=np.float64)
    if len(sizes) == 1:
        return 0.0, 1.0
    # Imported here because scipy takes longer than a small training.
    from scipy.special import stdtrit

    found = np.asarray(np.bincount(place, weights=hits), dtype=np.float64)
    effect = _design_effect(found, sizes)
    low, high = wilson(right / effect, n / effect, float(stdtrit(len(sizes) - 1, (1 + LEVEL) / 2)))
    return (low if right else 0.0), (high if right < n else 1.0)


def interval(
    statistic: Callable[[Rows], float],
    n: int,
    groups: Rows | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> tuple[float, float]:
    """Return the 95 % interval of ``statistic``, a fraction from 0 to 1; see :func:`intervals`."""
    return intervals(lambda rows: [statistic(rows)], n, groups, seed=seed, draws=draws)[0]


def intervals(
    statistics: Callable[[Rows], Sequence[float]],
    n: int,
    groups: Rows | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> list[tuple[float, float]]:
    """Return the 95 % intervals of fractions from 0 to 1 over N rows, by the bootstrap (Efron 1979).

    Each draw takes as many rows, or whole groups, as there are, with repetition. The interval is the expanded
    percentile interval (Hesterberg 2015): its percentiles lie further out, by Student's t for the number of
    rows or groups, because the plain ones are too narrow for few. It is shifted by twice the bias, the mean
    of the draws less the statistic (Efron, Tibshirani 1993, ch. 10): once for the bias of the draws, and once
    for that of the statistic. A calibration error needs that, for chance only adds to it. Draws that give NaN
    are left out. The same arguments give the same interval. Where all draws agree, it has no width and says
    nothing; without a finite statistic or draw, both ends are NaN.

    Args:
        statistics: of the rows at the given places, (M,); places repeat.
        groups: (N,) the group of each row; None: rows are independent.
    """
    rng = np.random.default_rng(seed)
    found = np.array([statistics(rows) for rows in _draws(rng, n, groups, draws)], dtype=np.float64)
    tail = _tail(n if groups is None else len(np.unique(groups)))
    measured = statistics(np.arange(n))
    return [_of_draws(column, value, tail) for column, value in zip(found.T, measured, strict=True)]


def count_groups(groups: Rows | None) -> int | None:
    """Return the number of groups; None if rows have none."""
    return None if groups is None else len(np.unique(groups))


def _draws(rng: np.random.Generator, n: int, groups: Rows | None, draws: int) -> Iterator[Rows]:
    if groups is None:
        yield from (rng.integers(0, n, n) for _ in range(draws))
        return
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    count = len(members)
    for _ in range(draws):
        yield np.concatenate([members[place] for place in rng.integers(0, count, count)])


def _of_draws(values: NDArray[np.float64], measured: float, tail: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values) or math.isnan(measured):
        return math.nan, math.nan
    bias = values.mean() - measured
    low, high = np.clip(np.quantile(values, [tail, 1 - tail]) - 2 * bias, 0.0, 1.0)
    return float(low), float(high)


def _tail(units: int) -> float:
    """The share of draws beyond each end of the expanded percentile interval."""
    if units < 2:
        return 0.0
    from scipy.special import stdtrit

    quantile = float(stdtrit(units - 1, (1 + LEVEL) / 2)) * math.sqrt(units / (units - 1))
    return NormalDist().cdf(-quantile)


def _design_effect(right: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """The design effect of :func:`share_interval`.

    Args:
        right: (G,) the hits of each group.
        sizes: (G,) its images.
    """
    n, count = sizes.sum(), len(sizes)
    share = right.sum() / n
    whole = (sizes**2).sum() / n
    decisive = min(_effective_number(right), _effective_number(sizes - right))
    measured = 1.0
    if decisive:
        without = (right.sum() - right) / (n - sizes)
        variance = ((without - share) ** 2).sum() * (count - 1) / count
        measured = max(variance * n / (share * (1 - share)), 1.0)
    return float((decisive * measured + PRIOR_GROUPS * whole) / (decisive + PRIOR_GROUPS))


def _effective_number(counts: NDArray[np.float64]) -> float:
    """The number of groups that ``counts`` are spread over, fewer if they are uneven (Kish 1965)."""
    squares = (counts**2).sum()
    return float(counts.sum() ** 2 / squares) if squares else 0.0
