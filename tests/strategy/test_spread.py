"""Mean, range and intervals, against closed forms and by simulation."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from finetune.strategy.experiments.spread import Spread, of_folds, of_repeats

VALUES = [0.91, 0.94, 0.93, 0.95, 0.92]


def test_repeats_have_the_interval_of_students_t() -> None:
    spread = of_repeats(VALUES)
    expected = ttest_1samp(VALUES, 0.0).confidence_interval(0.95)
    assert (spread.mean_low, spread.mean_high) == pytest.approx((expected.low, expected.high))
    assert (spread.low, spread.high, spread.n) == (0.91, 0.95, 5)
    assert spread.deviation == pytest.approx(math.sqrt(0.00025))


def test_folds_have_the_corrected_interval() -> None:
    """With k = 5 the variance of the mean is taken as (1/5 + 1/4) s^2, not s^2 / 5."""
    plain, corrected = of_repeats(VALUES), of_folds(VALUES)
    assert corrected.mean == plain.mean
    assert plain.mean_high is not None
    assert corrected.mean_high is not None
    ratio = (corrected.mean_high - corrected.mean) / (plain.mean_high - plain.mean)
    assert ratio == pytest.approx(math.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_one_repeat_says_nothing_of_the_spread() -> None:
    spread = of_repeats([0.5])
    assert (spread.mean, spread.deviation, spread.mean_low, spread.mean_high) == (0.5, None, None, None)
    assert of_folds([0.5]).mean_low is None
    with pytest.raises(ValueError, match="no values"):
        of_repeats([])


@pytest.mark.parametrize("values", [[0.5], [0.9, 0.9], [0.3, 0.8], [1.0, 1.0]])
@pytest.mark.parametrize(("of", "what"), [(of_repeats, "runs"), (of_folds, "folds")])
def test_too_few_have_no_interval(values: list[float], of: Callable[..., Spread], what: str) -> None:
    spread = of(values)
    assert (spread.mean_low, spread.mean_high) == (None, None)
    assert spread.interval(what) == f"too few {what} for an interval of the mean (it takes 3)"
    enough = of([*values, 0.7, 0.6])
    assert enough.interval(what).startswith("95 % interval of the mean [")


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_the_mean_is_in_its_range_and_interval(values: list[float]) -> None:
    spread = of_repeats(values)
    assert spread.low - 1e-12 <= spread.mean <= spread.high + 1e-12
    assert spread.mean_low is not None
    assert spread.mean_high is not None
    assert spread.mean_low <= spread.mean <= spread.mean_high


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        spread = of_repeats((0.9 + 0.02 * rng.standard_normal(4)).tolist())
        assert spread.mean_low is not None
        assert spread.mean_high is not None
        covered += spread.mean_low <= 0.9 <= spread.mean_high
    assert 0.93 <= covered / 1000 <= 0.97
