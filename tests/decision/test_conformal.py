"""Prediction sets: the coverage by simulation, against MAPIE, and what a card keeps of the scores."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from decision.test_calibration import drawn
from finetune.decision.calibration import calibrate
from finetune.decision.conformal import Conformal, SetRule, adaptive_scores, chance_of
from finetune.decision.probabilities import surprise
from finetune.decision.sorted_scores import SortedScores, least_images
from finetune.decision.wanted import SETS, Sets, Wanted
from finetune.errors import UserError


def covered(members: NDArray[np.bool_], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    return members[np.arange(len(targets)), targets]


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_the_coverage_is_what_was_asked(sets: Sets, coverage: float) -> None:
    """Over 120 draws of val and test, with the temperature fitted on the same val: within two standard errors
    and not above the bound of split conformal prediction."""
    shares = []
    for seed in range(120):
        logits, targets = drawn(300, 2.0, seed, classes=3)
        found = calibrate(logits[:200], targets[:200]).of(logits)
        rule = Conformal.of(found[:200], targets[:200]).rule(coverage, sets)
        members = rule.members(found[200:], np.random.default_rng(seed + 10_000).random(100))
        shares.append(covered(members, targets[200:]).mean())
    error = np.std(shares) / math.sqrt(len(shares))
    slack = 1 / 201 if sets != "per-class" else 1 / 40
    assert coverage - 2 * error <= np.mean(shares) <= coverage + slack + 2 * error


def test_sets_are_empty_where_the_network_is_better_than_the_coverage() -> None:
    """No class is forced into a set: that would raise the coverage above what was asked."""
    logits, targets = drawn(4000, 1.0, seed=1)
    logits[np.arange(4000), targets] += 4
    for sets in SETS:
        rule = Conformal.of(logits[:2000], targets[:2000]).rule(0.8, sets)
        members = rule.members(logits[2000:], np.random.default_rng(1).random(2000))
        assert covered(members, targets[2000:]).mean() == pytest.approx(0.8, abs=0.03)
        assert (members.sum(axis=1) == 0).mean() > 0.1


def test_adaptive_sets_are_larger_for_hard_images_and_smallest_ones_are_smaller() -> None:
    logits, targets = drawn(8000, 1.0, seed=2, classes=6)
    sizes = {}
    for sets in ("smallest", "adaptive"):
        rule = Conformal.of(logits[:4000], targets[:4000]).rule(0.9, sets)
        sizes[sets] = rule.members(logits[4000:], np.random.default_rng(2).random(4000)).sum(axis=1)
    assert sizes["smallest"].mean() < sizes["adaptive"].mean()
    sure = softmax(logits[4000:], axis=1).max(axis=1) > 0.9
    assert sizes["adaptive"][~sure].mean() > 1.5 * sizes["adaptive"][sure].mean()


def test_per_class_sets_cover_a_rare_class() -> None:
    logits, targets = drawn(20_000, 1.0, seed=3, classes=3)
    logits[:, 2] -= 2.5
    conformal = Conformal.of(logits[:10_000], targets[:10_000])
    rare = targets[10_000:] == 2
    shares = {}
    for sets in ("smallest", "per-class"):
        members = conformal.rule(0.9, sets).members(logits[10_000:], np.zeros(10_000))
        shares[sets] = covered(members, targets[10_000:])[rare].mean()
    assert shares["smallest"] < 0.8
    assert shares["per-class"] == pytest.approx(0.9, abs=0.02)


def test_the_quantile_is_the_exact_one_of_finite_samples() -> None:
    scores = SortedScores.of(np.arange(1.0, 10.0), 100)
    assert scores.quantile(0.9) == 9  # rank (9 + 1) 0.9, in spite of the product's last digit
    assert scores.quantile(0.5) == 5
    assert math.isinf(scores.quantile(0.91))
    assert [least_images(each) for each in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]


def test_few_scores_of_many_never_lower_the_quantile() -> None:
    values = np.sort(np.random.default_rng(0).random(9973))
    few, all_of_them = SortedScores.of(values, 500), SortedScores.of(values, 10_000)
    assert len(few.values) == 500
    for coverage in np.linspace(0.01, 0.999, 97):
        exact = all_of_them.quantile(coverage)
        assert exact <= few.quantile(coverage) <= exact + 0.005


def test_a_val_that_is_too_small_puts_every_class_into_every_set() -> None:
    logits, targets = drawn(8, 1.0, seed=4)
    conformal = Conformal.of(logits, targets)
    assert conformal.rule(0.9, "smallest").members(logits, np.zeros(8)).all()
    assert "needs 9" in conformal.guarantee(0.9, "smallest", ("a", "b", "c", "d"))
    assert not conformal.rule(0.5, "smallest").members(logits, np.zeros(8)).all()  # the control
    assert "are in every set: a" in conformal.guarantee(0.9, "per-class", ("a", "b", "c", "d"))


def test_the_guarantee_names_groups() -> None:
    logits, targets = drawn(40, 1.0, seed=4)
    plain = Conformal.of(logits, targets).guarantee(0.9, "smallest", ("a",) * 4)
    grouped = Conformal.of(logits, targets, np.arange(40) // 4).guarantee(0.9, "smallest", ("a",) * 4)
    assert "groups" not in plain
    assert "10 groups" in grouped


@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_mapie_gives_the_same_sets(coverage: float) -> None:
    classification = pytest.importorskip("mapie.classification")
    logits, targets = drawn(700, 1.3, seed=5, classes=5)
    rows = np.arange(len(targets))
    half, probabilities = 400, softmax(logits.astype(np.float64), axis=1)

    class Prefit:
        classes_ = np.arange(5)
        is_fitted_ = True

        def fit(self, *_: object) -> "Prefit":
            return self

        def predict_proba(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
            return probabilities[places[:, 0]]

        def predict(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
            return self.predict_proba(places).argmax(axis=1)

    def by_mapie(score: str, **how: str) -> NDArray[np.bool_]:
        found = classification.SplitConformalClassifier(
            Prefit(), confidence_level=coverage, conformity_score=score, random_state=7
        )
        found.conformalize(rows[:half, None], targets[:half])
        return found.predict_set(rows[half:, None], conformity_score_params=how or None)[1][:, :, 0]

    lac = Conformal.of(logits[:half], targets[:half]).rule(coverage, "smallest")
    ours = lac.members(logits[half:], np.zeros(len(rows) - half))
    np.testing.assert_array_equal(ours, by_mapie("lac"))
    # MAPIE subtracts its random part from the sum that includes the class; here it is added without it.
    chance = 1 - np.random.RandomState(7).uniform(size=half)
    scores = adaptive_scores(surprise(logits[:half]), chance)[rows[:half], targets[:half]]
    rule = SetRule("adaptive", np.full(5, SortedScores.of(scores, half).quantile(coverage)))
    ours = rule.members(logits[half:], 1 - np.random.RandomState(7).uniform(size=len(rows) - half))
    np.testing.assert_array_equal(ours, by_mapie("aps", include_last_label="randomized"))


def test_chance_comes_from_pixels_alone() -> None:
    images = np.random.default_rng(0).random((500, 3, 4, 4)).astype(np.float32)
    found = np.array([chance_of(each) for each in images])
    assert found.min() < 0.02
    assert found.max() > 0.98
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert chance_of(images[3].copy()) == found[3]


def test_a_card_keeps_the_scores() -> None:
    logits, targets = drawn(20_000, 1.0, seed=6, classes=30)
    conformal = Conformal.of(logits, targets, targets)
    kept = conformal.to_dict()
    assert Conformal.from_dict(kept) == conformal
    lists = [kept["smallest"], kept["adaptive"], *kept["per_class"]]
    assert sum(len(each["values"]) for each in lists) <= 8000
    for broken in (
        {"n": 3, "values": [2.0, 1.0]},
        {"n": 1, "values": [math.nan]},
        {"n": 0, "values": [1.0]},
        7,
    ):
        with pytest.raises(ValueError):
            Conformal.from_dict(kept | {"smallest": broken})


@pytest.mark.parametrize("wanted", [{"coverage": 90}, {"coverage": 0.0}, {"abstain": 1.0}, {"sets": "small"}])
def test_what_is_wanted_must_make_sense(wanted: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(wanted))):
        Wanted(**wanted)  # type: ignore[arg-type]
