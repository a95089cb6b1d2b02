"""Thresholds and costs: what they decide, and how they are stored."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.decision.decision import Decision
from finetune.decision.working_point import Costs, Goal, Threshold, in_percent, read_working_point

CLASSES = ("cat", "dog", "fox")


def drawn(n: int, c: int = 3) -> np.ndarray:
    return np.random.default_rng(n).dirichlet(np.ones(c), n)


def test_a_threshold_decides_its_class_from_there_on_and_else_the_best_of_the_others() -> None:
    rows = np.array([[0.2, 0.5, 0.3], [0.19, 0.5, 0.31], [0.6, 0.1, 0.3], [0.0, 0.5, 0.5]])
    assert Threshold("cat", 0.2).decide(rows, CLASSES).tolist() == [0, 1, 0, 1]
    assert Threshold("cat", 0.7).decide(rows, CLASSES).tolist() == [1, 1, 2, 1]
    assert Threshold("cat", 0.0).decide(rows, CLASSES).tolist() == [0, 0, 0, 0]


def test_half_is_the_most_probable_of_two_classes() -> None:
    rows = drawn(50, 2)
    assert Threshold("b", 0.5).decide(rows, ("a", "b")).tolist() == rows.argmax(axis=1).tolist()


@given(st.integers(0, 10_000))
def test_costs_decide_as_a_brute_force_search_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.product(CLASSES, repeat=2) if rng.random() < 0.5]
    costs = Costs(tuple((true, predicted, float(rng.integers(0, 20))) for true, predicted in pairs))
    named = {(true, predicted): cost for true, predicted, cost in costs.named}
    rows = rng.dirichlet(np.ones(3), 5)
    for row, decided in zip(rows, costs.decide(rows, CLASSES), strict=True):
        expected = [
            sum(
                p * named.get((true, predicted), float(true != predicted))
                for true, p in zip(CLASSES, row, strict=True)
            )
            for predicted in CLASSES
        ]
        assert expected[decided] == pytest.approx(min(expected))


def test_usual_costs_decide_the_most_probable_class() -> None:
    rows = drawn(40)
    assert Costs(()).decide(rows, CLASSES).tolist() == rows.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    "point",
    [
        Threshold("dog", 0.123),
        Threshold("dog", 1.0, Goal("recall", 0.95)),
        Costs((("fox", "cat", 10.0), ("cat", "fox", 0.5))),
    ],
)
def test_a_decision_reads_back_what_it_wrote(point: Threshold | Costs) -> None:
    decision = Decision(working_point=point)
    text = json.dumps(decision.to_dict(), sort_keys=True)
    assert Decision.from_dict(json.loads(text)) == decision
    decision.check(CLASSES)
    with pytest.raises(ValueError, match=r"working_point: '.*' is none of the classes"):
        decision.check(("a", "b"))


def test_a_decision_without_one_writes_none() -> None:
    assert "working_point" not in Decision().to_dict()
    assert Decision.from_dict(Decision().to_dict()).working_point is None


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"class": "cat", "threshold": 1.5},
        {"class": "cat", "threshold": float("nan")},
        {"class": "cat", "threshold": True},
        {"class": "cat", "threshold": 10**400},
        {"class": 3, "threshold": 0.5},
        {"class": "cat", "threshold": 0.5, "goal": {"recall": 0}},
        {"class": "cat", "threshold": 0.5, "goal": {"speed": 0.5}},
        {"costs": []},
        {"costs": {"cat": 1}},
        {"costs": {"cat": {"dog": -1}}},
        {"costs": {"cat": {"dog": "1"}}},
    ],
)
def test_a_damaged_one_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"must|costs"):
        read_working_point(value)


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50.0 %"),
        (0.12345, "12.3 %"),
        (0.00123456, "0.123 %"),
        (0.89, "89.0 %"),
        (0.999987, "99.99870 %"),
    ],
)
def test_a_threshold_in_per_cent_has_digits_near_its_ends(probability: float, text: str) -> None:
    assert in_percent(probability) == text
