"""What a working point does on a split: rates, costs, their intervals, the text and the figure."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

from finetune.decision.working_point import Costs, Goal, Threshold
from finetune.disk.figure import write_figure
from finetune.errors import UserError
from finetune.evaluation.curves_figure import draw_curves
from finetune.evaluation.resampling import wilson
from finetune.evaluation.working_point import (
    CostResult,
    Decided,
    ThresholdRates,
    ThresholdResult,
    threshold_for,
)
from finetune.evaluation.working_point_text import format_point

CLASSES = ("cat", "dog", "fox")


def drawn(name: str, seed: int, n: int = 120, groups: int = 0) -> Decided:
    """Logits that say something about the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[targets]
    number = rng.integers(0, groups, n) if groups else None
    return Decided.of_logits(name, logits.astype(np.float32), targets, CLASSES, number)


def measured(val: Decided, images: Decided, goal: Goal | None) -> ThresholdResult:
    point, is_reached = (None, False) if goal is None else threshold_for(val, "dog", goal)
    of_val, rates = (None if point is None else ThresholdRates.of(each, point) for each in (val, images))
    one, val_one = images.one_class("dog"), val.one_class("dog")
    return ThresholdResult("dog", goal, point, is_reached, False, of_val, rates, images, one, val_one)


VAL, TEST = drawn("val", 1), drawn("test", 2)
FOUND = measured(VAL, TEST, Goal("recall", 0.9))


def test_rates_are_those_of_scikit_learn_with_wilsons_intervals() -> None:
    point, rates = FOUND.point, FOUND.rates
    assert point is not None
    assert rates is not None
    is_dog = TEST.targets == 1
    flagged = TEST.probabilities[:, 1] >= point.at
    assert rates.recall is not None
    assert rates.recall.value == pytest.approx(recall_score(is_dog, flagged))
    assert (rates.recall.low, rates.recall.high) == wilson(rates.recall.hits, int(is_dog.sum()))
    assert rates.precision is not None
    assert rates.precision.value == pytest.approx(precision_score(is_dog, flagged))
    assert rates.specificity is not None
    assert rates.specificity.value == pytest.approx(recall_score(~is_dog, ~flagged))
    assert rates.flagged.value == pytest.approx(flagged.mean())
    decided = point.decide(TEST.probabilities, CLASSES)
    assert rates.accuracy.value == pytest.approx(accuracy_score(TEST.targets, decided))
    plain = TEST.probabilities.argmax(axis=1)
    assert rates.most_probable_accuracy.value == pytest.approx(accuracy_score(TEST.targets, plain))
    assert FOUND.val is not None
    assert FOUND.val.recall is not None
    assert FOUND.val.recall.value >= 0.9


def test_groups_widen_the_intervals() -> None:
    # Each image four times: a group says no more than one image.
    rows = np.repeat(np.arange(30), 4)
    four = replace(TEST, probabilities=TEST.probabilities[rows], targets=TEST.targets[rows])
    grouped = replace(four, groups=rows)
    point = Threshold("dog", 0.3)
    plain, whole = ThresholdRates.of(four, point), ThresholdRates.of(grouped, point)
    assert whole.groups == 30
    assert whole.to_dict()["groups"] == 30
    assert "groups" not in plain.to_dict()
    assert whole.flagged.value == plain.flagged.value
    assert whole.flagged.high - whole.flagged.low > 1.5 * (plain.flagged.high - plain.flagged.low)
    result = measured(VAL, replace(grouped, name="test"), Goal("recall", 0.9))
    assert "Intervals count the 30 groups of test" in format_point(result)


def test_costs_are_those_of_the_confusion_matrix() -> None:
    costs = Costs((("dog", "cat", 7.0), ("cat", "dog", 0.25)))
    rates = TEST.cost(costs)
    matrix = costs.matrix(CLASSES)
    decided = costs.decide(TEST.probabilities, CLASSES)
    plain = TEST.probabilities.argmax(axis=1)
    expected = [(confusion_matrix(TEST.targets, each) * matrix).sum() / 120 for each in (decided, plain)]
    assert [rates.mean_cost.value, rates.most_probable_cost.value] == pytest.approx(expected)
    assert rates.difference.value == pytest.approx(expected[0] - expected[1])
    assert rates.difference.low < rates.difference.value < rates.difference.high
    assert rates.changed == (decided != plain).sum() > 0
    # The same images on both sides: the difference is known better than two costs apart.
    apart = (
        rates.mean_cost.high
        - rates.mean_cost.low
        + rates.most_probable_cost.high
        - rates.most_probable_cost.low
    )
    assert rates.difference.high - rates.difference.low < apart


def test_usual_costs_change_nothing() -> None:
    rates = TEST.cost(Costs(()))
    assert rates.changed == 0
    assert rates.mean_cost.value == pytest.approx(1 - rates.accuracy.value)
    assert (rates.difference.value, rates.difference.low, rates.difference.high) == (0, 0, 0)


def test_the_text_has_both_splits_and_the_curves() -> None:
    text = format_point(FOUND)
    assert text.startswith("'dog' against the rest\ngoal       a recall of at least 90 % on val\nthreshold  ")
    heading, *lines = text.split("\n\n")[1].splitlines()
    assert heading.split() == ["val", "test"]
    assert [line.split("  ")[0] for line in lines[:4]] == ["recall", "precision", "specificity", "flagged"]
    dogs = int((VAL.targets == 1).sum())
    assert f"The threshold rests on {dogs} val images of the class. From so few, its recall on" in text
    assert "the curves on test" in text
    assert "nan" not in text


def without_dogs(images: Decided) -> Decided:
    rows = images.targets != 1
    return replace(images, probabilities=images.probabilities[rows], targets=images.targets[rows])


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            measured(without_dogs(VAL), TEST, Goal("recall", 0.9)),
            "val has no image of 'dog', so no threshold",
        ),
        (measured(VAL, without_dogs(TEST), Goal("recall", 0.9)), "test has no image of 'dog': recall and"),
        (measured(VAL, VAL, Goal("recall", 0.9)), "chosen on these very images"),
        (measured(VAL, replace(TEST, name="train"), Goal("recall", 0.9)), "trained on these images"),
        (measured(VAL, TEST, None), "the curves on test"),
        (measured(VAL, replace(TEST, probabilities=np.eye(3)[TEST.targets]), None), "do not overlap here"),
    ],
)
def test_what_cannot_be_measured_is_said_and_no_number_is_nan(result: ThresholdResult, words: str) -> None:
    assert words in format_point(result)
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_goal_out_of_reach_shows_the_nearest_threshold() -> None:
    rows = np.arange(len(VAL.targets))
    surest = int(VAL.probabilities[:, 1].argmax())
    spoilt = replace(VAL, targets=np.where(rows == surest, 0, VAL.targets))
    result = measured(spoilt, TEST, Goal("precision", 1.0))
    assert not result.is_reached
    assert "No threshold reaches a precision of at least 100 % on val; the nearest is shown." in format_point(
        result
    )
    value = result.to_dict()
    assert value["threshold"] is None
    assert 0 < value["nearest"] < 1


def test_the_text_of_costs_names_them() -> None:
    costs = Costs((("dog", "cat", 7.0),))
    text = format_point(CostResult(costs, True, TEST.cost(costs), TEST))
    assert "kept with the run" in text
    assert "costs  7: 'dog' taken for 'cat'" in text
    assert "of 120 images get another class" in text


def test_the_figure_is_drawn_in_every_format(tmp_path: Path) -> None:
    figure = draw_curves(FOUND)
    for ending in ("png", "svg"):
        write_figure(figure, tmp_path / f"curves.{ending}")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1440, 840)
    roc, pr = figure.axes
    assert FOUND.rates is not None
    assert FOUND.rates.recall is not None
    assert FOUND.rates.precision is not None
    for axes, x in ((roc, None), (pr, 100 * FOUND.rates.recall.value)):
        assert str(axes.lines[-1].get_label()).startswith("threshold ")
        assert x is None or axes.lines[-1].get_xdata() == [x]
    assert pr.lines[-1].get_ydata() == [100 * FOUND.rates.precision.value]


def test_no_figure_is_drawn_without_images_of_the_class() -> None:
    with pytest.raises(UserError, match="test has no image of 'dog'"):
        draw_curves(measured(VAL, without_dogs(TEST), Goal("recall", 0.9)))
