"""Intervals: coverage in simulations with a known truth, by rows and by groups, and the script for it."""

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from finetune.evaluation.intervals import measure_intervals
from finetune.evaluation.metrics import calibration_error, classification_metrics
from finetune.evaluation.resampling import interval, share_interval, wilson

Rows = NDArray[np.int64]


def drawn_hits(rng: np.random.Generator, sizes: Rows, share: float, alike: float) -> NDArray[np.bool_]:
    """Images right or wrong, beta-binomial: ``alike`` is the correlation of two images of a group."""
    scale = (1 - alike) / alike
    chances = rng.beta(share * scale, (1 - share) * scale, len(sizes))
    return np.repeat(chances, sizes) > rng.random(sizes.sum())


def coverage(of: str, share: float, alike: float, groups: int, *, uneven: bool) -> float:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        sizes = rng.integers(1, 30, groups) if uneven else np.full(groups, 10)
        hits = drawn_hits(rng, sizes, share, alike)
        group = None if of == "images" else np.repeat(np.arange(groups), sizes)
        low, high = share_interval(hits, group)
        assert 0 <= low <= hits.mean() <= high <= 1
        covered += low <= share <= high
    return covered / 300


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(
    ("share", "alike", "groups"), [(0.8, 0.3, 10), (0.8, 0.3, 30), (0.95, 0.5, 20), (0.6, 0.1, 60)]
)
def test_the_interval_by_groups_covers_the_truth(
    share: float, alike: float, groups: int, uneven: bool
) -> None:
    assert 0.92 <= coverage("groups", share, alike, groups, uneven=uneven) <= 0.99
    # The images' own interval fails the same test.
    assert coverage("images", share, alike, groups, uneven=uneven) < 0.87


@pytest.mark.parametrize(("right", "n"), [(0, 50), (12, 50), (47, 50), (50, 50), (380, 400)])
def test_groups_of_one_image_give_nearly_wilson(right: int, n: int) -> None:
    hits = np.arange(n) < right
    assert share_interval(hits) == wilson(right, n)
    alone = share_interval(hits, np.arange(n) * 7)
    by_t = wilson(right, n, float(t.ppf(0.975, n - 1)))
    assert alone == pytest.approx(by_t, abs=0.004)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_copies_of_images_do_not_narrow_it(share: float) -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(120) < share
    groups = np.arange(120) // 8
    once = share_interval(hits, groups)
    again = share_interval(np.tile(hits, 5), np.tile(groups, 5))
    assert again == pytest.approx(once, abs=0.005)
    assert again[1] - again[0] > 0.99 * (once[1] - once[0])
    wide, narrow = share_interval(hits), share_interval(np.tile(hits, 5))
    assert narrow[1] - narrow[0] < 0.6 * (wide[1] - wide[0])  # images count copies


def test_few_groups_say_little() -> None:
    hits = np.ones(300, dtype=np.bool_)
    assert share_interval(hits, np.zeros(300, dtype=np.int64)) == (0.0, 1.0)
    two, five, thirty = (share_interval(hits, np.arange(300) % count) for count in (2, 5, 30))
    assert two[0] < 0.05 < five[0] < thirty[0] < wilson(300, 300)[0]
    assert two[1] == five[1] == thirty[1] == 1.0


def test_the_bootstrap_of_a_mean_is_close_to_a_closed_form() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(200)
    low, high = interval(lambda rows: float(values[rows].mean()), 200)
    half = 1.96 * values.std() / math.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)
    assert interval(lambda rows: float(values[rows].mean()), 200) == (low, high)
    assert interval(lambda rows: float(values[rows].mean()), 200, seed=1) != (low, high)
    # Ten copies of each value in a group of their own are no more than the value.
    copies, groups = np.repeat(values, 10), np.repeat(np.arange(200), 10)
    by_groups = interval(lambda rows: float(copies[rows].mean()), 2000, groups)
    assert by_groups == pytest.approx((low, high), abs=0.006)
    wrong = interval(lambda rows: float(copies[rows].mean()), 2000)
    assert wrong[1] - wrong[0] < 0.5 * (high - low)


def test_draws_without_a_value_are_left_out() -> None:
    def some(rows: Rows) -> float:
        return math.nan if 0 not in rows else float((rows > 4).mean())

    low, high = interval(some, 10)
    assert 0 < low < high <= 1
    assert all(map(math.isnan, interval(lambda rows: math.nan, 10)))
    assert interval(lambda rows: 0.25, 10) == (0.25, 0.25)


@pytest.mark.parametrize("gap", [0.1, 0.2])
def test_the_interval_of_the_calibration_error_covers_it(gap: float) -> None:
    """Chance adds to the error, and once more to that of the draws: plain percentiles lie too high."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        confidence = rng.uniform(0.6, 1.0, 150)
        right = rng.random(150) < confidence - gap
        low, high = interval(partial(error_of, confidence, right), 150, draws=200)
        covered += low <= gap <= high
    assert covered >= 34


def error_of(confidence: NDArray[np.float64], right: NDArray[np.bool_], rows: Rows) -> float:
    return calibration_error(confidence[rows], right[rows])


def test_intervals_of_classes_and_of_metrics_over_them() -> None:
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 3, 300)
    logits = rng.normal(size=(300, 4)).astype(np.float32)
    logits[np.arange(300), targets] += 2
    logits[:, 3] = -9
    names = ["a", "b", "c", "never"]
    metrics, found = classification_metrics(logits, targets, names), measure_intervals(logits, targets)
    for place, entry in enumerate(metrics.per_class[:3]):
        right = int(metrics.confusion[place, place])
        assert found.recall[place] == wilson(right, entry.support)
        assert found.precision[place] == wilson(right, int(metrics.confusion[:, place].sum()))
    assert found.recall[3] is found.precision[3] is None
    for name in ("balanced_accuracy", "macro_f1", "ece"):
        low, high = found.metrics[name]
        assert low < metrics.values[name] < high
    groups = np.repeat(np.arange(30), 10)
    assert measure_intervals(logits, targets, groups).metrics != found.metrics
    assert metrics.groups is None
    by_groups = classification_metrics(logits, targets, names, groups)
    assert (by_groups.groups, by_groups.counted) == (30, "n = 300 in 30 groups")
    assert by_groups.images_interval == (metrics.top1_low, metrics.top1_high)
    assert by_groups.to_dict()["groups"] == 30


def test_where_all_is_right_only_shares_have_an_interval() -> None:
    logits = np.eye(2)[np.arange(40) % 2] * 50
    found = measure_intervals(logits, np.arange(40) % 2)
    assert not found.metrics
    assert found.recall == (wilson(20, 20), wilson(20, 20))


def test_the_script_writes_a_row(load_script: Callable[[str], ModuleType]) -> None:
    script = load_script("group-experiment")
    cells = script.accuracy_row(6, uneven=True, draws=2).split("|")[1:-1]
    assert [each.strip() for each in cells[:2]] == ["very uneven", "6"]
    assert len(cells) == script.HEAD.splitlines()[-1].count("|") - 1
    assert script.pair_row(6, uneven=False, draws=1).count("|") == script.PAIRS.splitlines()[-1].count("|")
