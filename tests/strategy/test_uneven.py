"""Classes of uneven size: what the advice measures, chooses, writes and says."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from finetune.recipe.load import parse_recipe
from finetune.strategy.advice.advise import base_recipe
from finetune.strategy.advice.facts import Corrected, Facts, Probed, Seconds, Uneven
from finetune.strategy.advice.reasons import explain
from finetune.strategy.advice.recipe_text import write_recipe
from finetune.strategy.advice.rule import Strategy, choose
from finetune.strategy.advice.sample import paired_balanced_gain
from finetune.strategy.advice.settings import choose_settings
from finetune.strategy.advice.uneven import measure_uneven
from finetune.strategy.probing.frozen_features import FeatureRows


def drawn(counts: tuple[int, ...], apart: float, seed: int = 0) -> FeatureRows:
    """Features of classes at the corners of a simplex, with normal noise."""
    draw = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(counts)), counts)
    features = draw.normal(size=(len(targets), 12)) + apart * np.eye(len(counts), 12)[targets]
    return FeatureRows(features.astype(np.float32), targets.astype(np.int64), None)


def test_even_classes_are_not_measured() -> None:
    assert measure_uneven(drawn((20, 29), 1.0), 0) is None
    assert measure_uneven(drawn((20,), 1.0), 0) is None
    # A class of one image cannot be cross-validated, and does not count.
    assert measure_uneven(drawn((20, 20, 1), 1.0), 0) is None


def test_logit_adjustment_is_best_where_uneven_classes_overlap() -> None:
    """Of classes with equal normal noise, the best classifier is the plain one less the log frequencies."""
    found = measure_uneven(drawn((240, 30), 1.5), 0)
    assert found is not None
    assert (found.n, found.ratio) == (270, 8.0)
    assert found.best in ("logit_adjust", "class_weights")
    adjusted, plain = found.tried["logit_adjust"], found.tried["none"]
    assert adjusted.gain > 2 * adjusted.error > 0
    assert adjusted.gain == pytest.approx(adjusted.balanced_accuracy - plain.balanced_accuracy)
    assert plain.top1 > adjusted.top1  # which is what balanced accuracy costs
    assert (plain.gain, plain.error) == (0.0, 0.0)


def test_no_correction_is_chosen_where_none_is_needed() -> None:
    found = measure_uneven(drawn((60, 20, 20), 30.0), 0)
    assert found is not None
    assert {each.balanced_accuracy for each in found.tried.values()} == {1.0}
    assert found.best == "none"


@pytest.mark.parametrize(
    ("gains", "best"),
    [
        ((0.0, 0.0), "none"),
        ((0.009, 0.0), "none"),
        ((0.02, 0.011), "class_weights"),
        ((0.011, 0.02), "logit_adjust"),
        ((-0.1, -0.1), "none"),
    ],
)
def test_the_larger_gain_is_chosen_if_it_exceeds_its_standard_error(
    gains: tuple[float, float], best: str
) -> None:
    assert uneven(*gains).best == best


def uneven(weights: float, adjusted: float) -> Uneven:
    plain = Corrected(0.7, 0.8, 0.0, 0.0)
    weighted, adjust = (Corrected(0.7 + gain, 0.8, gain, 0.01) for gain in (weights, adjusted))
    return Uneven(500, 9.0, {"none": plain, "class_weights": weighted, "logit_adjust": adjust})


def facts(corrections: Uneven | None, **changes: Any) -> Facts:
    depths = tuple(Probed(2 * n, f"layer{n}", 0.5 + n / 20, 500) for n in range(1, 5))
    plain: dict[str, Any] = {
        "source": "photos", "classes": 3, "train": 600, "val": 60, "test": 100, "fewest": 50, "most": 450,
        "backbone": "resnet18", "weights": "IMAGENET1K_V1", "image_size": 224, "depths": depths,
        "probe": depths[-1], "shares": tuple(n / 8 for n in range(1, 9)), "shift": 0.05, "confidence": None,
        "told_apart": None, "tried": {}, "seconds": Seconds(0.01, 0.02, 0.06), "computed": 600, "cached": 0,
        "uneven": corrections,
    }  # fmt: skip
    return Facts(**plain | changes)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize(
    ("gains", "keys"),
    [
        ((0.0, 0.0), {}),
        ((0.1, 0.0), {"class_weights": "balanced"}),
        ((0.1, 0.2), {"logit_adjust": 1.0}),
    ],
)
def test_the_recipe_has_the_chosen_correction(
    strategy: Strategy, gains: tuple[float, float], keys: dict[str, Any]
) -> None:
    known = facts(uneven(*gains))
    chosen = choose_settings(strategy, known)
    recipe = parse_recipe(write_recipe(base_recipe("photos", "resnet18"), strategy, chosen), "advised.yaml")
    plain = {"class_weights": "none", "logit_adjust": None}
    assert recipe.train.model_dump(include=set(plain)) == plain | keys
    assert recipe.train.select == "balanced_accuracy"
    even = choose_settings(strategy, facts(None))
    assert dataclasses.replace(chosen, correction="none", select=even.select) == even


def test_the_reason_has_the_numbers() -> None:
    known = facts(uneven(0.005, 0.2))
    choice = choose(known)
    reasons = dict(explain(known, choice, choose_settings(choice.strategy, known), 10.0))
    assert reasons["classes"] == (
        "uneven: the largest has 9.0 times the images of the smallest; balanced accuracy of a linear "
        "classifier, cross-validated on 500 images: without correction 70.0 %, class_weights: balanced "
        "70.5 % (+0.5, standard error 1.0), logit_adjust: 1 90.0 % (+20.0, standard error 1.0); chosen: "
        "logit_adjust: 1, whose gain exceeds its standard error"
    )
    assert "balanced accuracy on val" in reasons["best epoch"]
    assert "classes" not in dict(
        explain(facts(None), choice, choose_settings(choice.strategy, facts(None)), 1.0)
    )


def test_the_measurements_survive_json() -> None:
    import json

    for corrections in (None, uneven(0.1, 0.2)):
        known = facts(corrections)
        assert Facts.from_dict(json.loads(json.dumps(known.to_dict()))) == known


TARGETS = np.repeat([0, 1, 2], [200, 40, 10])


def hits(seed: int, rate: float) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(len(TARGETS)) < rate


def test_the_gain_is_the_difference_of_balanced_accuracies() -> None:
    first, second = hits(0, 0.8), hits(1, 0.7)

    def score(right: NDArray[np.bool_]) -> float:
        return float(balanced_accuracy_score(TARGETS, np.where(right, TARGETS, (TARGETS + 1) % 3)))

    gain, error = paired_balanced_gain(first, second, TARGETS, None)
    assert gain == pytest.approx(score(first) - score(second))
    difference = first.astype(float) - second
    parts = [np.var(each, ddof=1) / len(each) for each in (difference[c == TARGETS] for c in range(3))]
    assert error == pytest.approx(np.sqrt(sum(parts)) / 3)
    assert paired_balanced_gain(first, first, TARGETS, None) == (0.0, 0.0)


def test_copies_in_one_group_do_not_make_the_gain_surer() -> None:
    first, second = hits(0, 0.8), hits(1, 0.7)
    _, error = paired_balanced_gain(first, second, TARGETS, None)
    four = [np.tile(each, 4) for each in (first, second, TARGETS, np.arange(len(TARGETS)))]
    _, alone = paired_balanced_gain(four[0], four[1], four[2], None)
    _, grouped = paired_balanced_gain(*four)
    assert alone < 0.6 * error
    assert grouped == pytest.approx(error, rel=0.06)
