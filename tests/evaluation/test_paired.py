"""Paired comparisons against closed forms, a reference computation and simulated coverage."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.paired import difference_interval, mcnemar, paired


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
