"""Paired comparisons against closed forms, a reference computation and simulated coverage."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from finetune.evaluation.paired import difference_interval, mcnemar, paired, sign_flip


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (0, 6), (2, 9), (12, 5)])
def test_mcnemar_is_the_sign_test(first: int, second: int) -> None:
    n, few = first + second, min(first, second)
    expected = min(1.0, 2 * sum(comb(n, k) for k in range(few + 1)) / 2**n)
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == pytest.approx(expected)


def test_the_interval_matches_the_paper() -> None:
    """Bonett and Price: (f12 + 1, f21 + 1) over n + 2, by hand: 10 and 2 of 50 disagree."""
    p12, p21 = 3 / 52, 11 / 52
    half = 1.959964 * ((p12 + p21 - (p21 - p12) ** 2) / 52) ** 0.5
    assert difference_interval(2, 10, 50) == pytest.approx((8 / 52 - half, 8 / 52 + half), abs=1e-6)


@given(st.integers(1, 300), st.data())
def test_the_interval_contains_the_difference_and_stays_in_range(n: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n))
    second = data.draw(st.integers(0, n - first))
    low, high = difference_interval(first, second, n)
    assert -1 <= low < high <= 1
    assert (-high, -low) == pytest.approx(difference_interval(second, first, n))


@pytest.mark.parametrize(
    ("only_first", "only_second", "n"), [(0.1, 0.1, 50), (0.02, 0.12, 80), (0.05, 0.0, 150)]
)
def test_the_coverage_of_the_interval(only_first: float, only_second: float, n: int) -> None:
    rng = np.random.default_rng(1)
    counts = rng.multinomial(n, [only_first, only_second, 1 - only_first - only_second], size=2000)
    truth = only_second - only_first
    covered = sum(
        low <= truth <= high for low, high in (difference_interval(int(b), int(c), n) for b, c, _ in counts)
    )
    assert covered / 2000 >= 0.94


def test_paired_counts_disagreements() -> None:
    first = np.array([1, 1, 1, 0, 0, 0, 1, 1], dtype=np.bool_)
    second = np.array([1, 1, 0, 1, 1, 0, 1, 1], dtype=np.bool_)
    result = paired(first, second)
    assert (result.n, result.only_first, result.only_second) == (8, 1, 2)
    assert result.difference == pytest.approx(1 / 8)
    assert result.low < 0 < result.high
    assert result.p == pytest.approx(1.0)
    with pytest.raises(ValueError, match="images"):
        paired(first, second[:-1])


def test_the_sign_flip_test_is_a_count_of_all_signings() -> None:
    rng = np.random.default_rng(4)
    for _ in range(5):
        sums = rng.integers(-4, 6, 9)
        totals = [abs(int(np.dot(signs, sums))) for signs in product((-1, 1), repeat=9)]
        assert sign_flip(sums) == pytest.approx(np.mean(np.array(totals) >= abs(int(sums.sum()))))
        assert sign_flip(-sums) == sign_flip(sums)
    assert sign_flip(np.zeros(4, dtype=np.int64)) == 1.0


@given(st.integers(0, 40), st.integers(0, 40))
def test_with_groups_of_one_image_it_is_mcnemars_test(first: int, second: int) -> None:
    sums = np.repeat(np.array([-1, 1, 0]), [first, second, 5])
    assert sign_flip(sums) == pytest.approx(mcnemar(first, second))


def two_networks(rng: np.random.Generator, groups: int, gain: float) -> tuple[NDArray[np.bool_], ...]:
    """Two networks, right on about 0.7 of ten images of each group; a group suits one of them better."""
    liking = rng.normal(0.0, 0.15, groups).repeat(10)
    draws = rng.random((2, groups * 10))
    return draws[0] < 0.7 - liking, draws[1] < 0.7 + gain + liking


@pytest.mark.parametrize(("groups", "gain"), [(12, 0.0), (30, 0.0), (30, 0.1)])
def test_by_groups_the_size_and_the_coverage_hold(groups: int, gain: float) -> None:
    rng = np.random.default_rng(7)
    group = np.arange(groups).repeat(10)
    found = []
    for _ in range(200):
        first, second = two_networks(rng, groups, gain)
        found.append((paired(first, second, group), paired(first, second)))
    covered, alone = (
        np.mean([each.low <= gain <= each.high for each in side]) for side in zip(*found, strict=True)
    )
    assert 0.92 <= covered <= 0.99
    assert alone < 0.85  # images are not independent
    if not gain:
        refused, by_images = (np.mean([each.p < 0.05 for each in side]) for side in zip(*found, strict=True))
        assert refused <= 0.075
        assert by_images > 0.12
    assert {(one.groups, one.test, other.test) for one, other in found} == {(groups, "sign-flip", "McNemar")}


def test_by_groups_intervals_agree_with_the_test_and_with_images() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(300) < 0.8, rng.random(300) < 0.9
    images = paired(first, second)
    ones = paired(first, second, np.arange(300))
    assert ones.p == pytest.approx(images.p)
    assert (ones.low, ones.high) == pytest.approx((images.low, images.high), abs=0.012)
    # Copies of the images in the same groups add nothing.
    group = np.arange(300) // 10
    once = paired(first, second, group)
    again = paired(np.tile(first, 3), np.tile(second, 3), np.tile(group, 3))
    assert again.p == pytest.approx(once.p)
    assert again.high - again.low > 0.95 * (once.high - once.low)
    swapped = paired(second, first, group)
    assert (-swapped.high, -swapped.low) == pytest.approx((once.low, once.high), abs=0.005)
    # One group cannot tell, nor can two; without a disagreement the interval keeps a width.
    assert (
        paired(first, second, np.zeros(300, dtype=np.int64)).low,
        paired(first, second, group // 15).p,
    ) == (-1.0, 0.5)
    same = paired(first, first, group)
    assert same.p == 1.0
    assert same.low < 0 < same.high
