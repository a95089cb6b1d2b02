"""One class against the rest: curves, areas and thresholds, against scikit-learn and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from finetune.decision.working_point import Goal
from finetune.evaluation.choose_threshold import choose_threshold
from finetune.evaluation.one_class import OneClass, area_under_roc, mean_precision


def drawn(seed: int, n: int = 80, levels: int = 12, groups: int = 0) -> OneClass:
    """Scores with ties, which say something about the class."""
    rng = np.random.default_rng(seed)
    is_class = rng.random(n) < 0.4
    scores = np.clip(np.round((rng.random(n) + 0.4 * is_class) * levels) / (1.4 * levels), 0, 1)
    return OneClass(scores, is_class, rng.integers(0, groups, n) if groups else None)


@pytest.mark.parametrize("seed", range(5))
def test_curves_and_areas_are_those_of_scikit_learn(seed: int) -> None:
    one = drawn(seed)
    sweep = one.sweep
    false, recall, thresholds = roc_curve(one.is_class, one.scores, drop_intermediate=False)
    np.testing.assert_allclose(sweep.thresholds, thresholds[1:])
    np.testing.assert_allclose(sweep.recall, recall[1:])
    np.testing.assert_allclose(sweep.false_positive_rate, false[1:])
    precision, recall, thresholds = precision_recall_curve(one.is_class, one.scores)
    np.testing.assert_allclose(sweep.thresholds, thresholds[::-1])
    np.testing.assert_allclose(sweep.precision, precision[:-1][::-1])
    np.testing.assert_allclose(sweep.recall, recall[:-1][::-1])
    assert area_under_roc(sweep.found, sweep.flagged) == pytest.approx(
        roc_auc_score(one.is_class, one.scores)
    )
    expected = average_precision_score(one.is_class, one.scores)
    assert mean_precision(sweep.found, sweep.flagged) == pytest.approx(expected)


def test_areas_have_the_interval_of_resampled_images() -> None:
    one = drawn(3, groups=20)
    rng = np.random.default_rng(7)
    for area, score in ((one.auroc, roc_auc_score), (one.average_precision, average_precision_score)):
        assert area is not None
        assert 0 <= area.low < area.value < area.high <= 1
        members = [np.flatnonzero(one.groups == group) for group in range(20)]
        draws = []
        for _ in range(150):
            rows = np.concatenate([members[group] for group in rng.integers(0, 20, 20)])
            draws.append(score(one.is_class[rows], one.scores[rows]))
        # Another seed, plain percentiles: nearly the same.
        np.testing.assert_allclose([area.low, area.high], np.quantile(draws, [0.025, 0.975]), atol=0.06)


def test_without_images_of_the_class_or_others_nothing_is_a_number_that_is_none() -> None:
    scores = np.array([0.1, 0.9, 0.5])
    none, every = OneClass(scores, np.zeros(3, bool)), OneClass(scores, np.ones(3, bool))
    assert none.auroc is None
    assert none.average_precision is None
    assert every.auroc is None
    assert every.average_precision is not None
    assert every.average_precision.value == 1
    assert [point["recall"] for point in none.sweep.points(9)] == [None] * 3
    assert [point["false_positive_rate"] for point in every.sweep.points(9)] == [None] * 3


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    one = drawn(1, n=4000, levels=100_000)
    points = one.sweep.points(100)
    assert len(points) <= 100
    assert points[-1]["recall"] == 1
    assert points[0]["threshold"] == one.scores.max()
    steps = np.diff([[point["recall"], point["false_positive_rate"]] for point in points], axis=0)
    assert (steps >= 0).all()
    assert steps.sum(axis=1).max() < 0.03


SCORES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1e-300, 0.1, 0.25, 0.5, 1 - 1e-16, 1.0]) | st.floats(0, 1), st.booleans()
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=200)
@given(SCORES, st.floats(0.001, 1))
def test_a_recall_is_reached_and_a_higher_threshold_would_miss_it(
    pairs: list[tuple[float, bool]], value: float
) -> None:
    one = OneClass(np.array([score for score, _ in pairs]), np.array([true for _, true in pairs]))
    choice = choose_threshold(one.sweep, Goal("recall", value))
    if not one.positives:
        assert choice is None
        return
    assert choice is not None
    assert choice.is_reached
    assert 0 <= choice.at <= 1
    flagged = one.scores >= choice.at
    assert (flagged & one.is_class).sum() / one.positives >= value
    # Any threshold that leaves out the last flagged image.
    fewer = one.scores > one.scores[flagged].min()
    assert (fewer & one.is_class).sum() / one.positives < value


@settings(max_examples=200)
@given(SCORES, st.floats(0.001, 1))
def test_a_precision_is_reached_by_the_lowest_threshold_or_by_none(
    pairs: list[tuple[float, bool]], value: float
) -> None:
    one = OneClass(np.array([score for score, _ in pairs]), np.array([true for _, true in pairs]))
    choice = choose_threshold(one.sweep, Goal("precision", value))
    if not one.positives:
        assert choice is None
        return
    assert choice is not None
    precisions = {
        score: float(one.is_class[one.scores >= score].mean()) for score in set(one.scores.tolist())
    }
    flagged = one.scores >= choice.at
    lowest = float(one.scores[flagged].min())
    if choice.is_reached:
        assert precisions[lowest] >= value
        assert all(precision < value for score, precision in precisions.items() if score < lowest)
    else:
        assert max(precisions.values()) < value
        assert precisions[lowest] == max(precisions.values())


def test_a_threshold_does_not_depend_on_the_last_digits_of_a_probability() -> None:
    scores, is_class = np.array([0.9, 0.7, 0.4, 0.2]), np.array([True, True, False, False])
    choice = choose_threshold(OneClass(scores, is_class).sweep, Goal("recall", 1))
    assert choice is not None
    assert 0.7 - 1e-4 < choice.at < 0.7 * (1 - 1e-6)
