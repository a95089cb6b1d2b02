"""Not sure: the goal is reached on average, and what a card keeps."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta

from decision.test_calibration import drawn
from finetune.decision.abstain import CONFIDENCE, Answers, least_answered
from finetune.decision.decision import Decision
from finetune.decision.wanted import Wanted
from finetune.errors import UserError


def test_the_accuracy_among_the_answered_reaches_the_goal() -> None:
    """In most draws, and on average."""
    accuracy, answered = [], []
    for seed in range(200):
        logits, targets = drawn(1200, 1.0, seed)
        rule = Answers.of(logits[:200], targets[:200]).rule(0.9)
        if rule is None:
            continue
        sure = rule.is_sure(logits[200:])
        answered.append(sure.mean())
        accuracy.append((logits[200:].argmax(axis=1) == targets[200:])[sure].mean())
    assert len(accuracy) > 120
    assert np.mean(accuracy) >= 0.91
    assert np.mean(np.array(accuracy) >= 0.9) > 0.65
    assert 0.15 < np.mean(answered) < 0.9
    assert np.mean(drawn(1000, 1.0, 0)[0].argmax(axis=1) == drawn(1000, 1.0, 0)[1]) < 0.85  # the control


def test_the_rule_is_the_largest_share_whose_bound_reaches_the_goal() -> None:
    """Against the bound of Clopper and Pearson by the beta distribution."""
    logits, targets = drawn(300, 1.0, seed=3)
    order = np.argsort(-softmax(logits.astype(float), axis=1).max(axis=1), kind="stable")
    right = np.cumsum((logits.argmax(axis=1) == targets)[order])
    ranks = np.arange(1, 301)
    for goal in (0.7, 0.8, 0.9):
        low = beta.ppf(1 - CONFIDENCE, right, ranks - right + 1)
        best = ranks[low >= goal].max()
        found = Answers.of(logits, targets).rule(goal)
        assert found is not None
        assert (found.answered, found.right, found.n) == (best, right[best - 1], 300)
        assert found.is_sure(logits).sum() == best


def test_the_fewest_images_that_speak_for_a_goal() -> None:
    logits = np.linspace([9, 0], [1, 0], 32).astype(np.float32)
    assert least_answered(0.95) == 32
    assert Answers.of(logits, np.zeros(32, dtype=np.int64)).rule(0.95) is not None
    assert Answers.of(logits[1:], np.zeros(31, dtype=np.int64)).rule(0.95) is None


def test_equal_probabilities_are_answered_together() -> None:
    logits = np.array([[3, 0]] * 8 + [[1, 0]] * 8, dtype=np.float32)
    targets = np.array([0] * 8 + [0, 1, 1, 1] * 2)
    found = Answers.of(logits, targets).rule(0.8)
    assert found is not None
    assert (found.answered, found.right) == (8, 8)
    assert found.is_sure(logits).tolist() == [True] * 8 + [False] * 8


def test_a_goal_that_nothing_reaches_is_refused() -> None:
    logits, targets = drawn(30, 1.0, seed=1)
    decision = Decision(answers=Answers.of(logits, targets))
    with pytest.raises(UserError, match=r"no threshold shows .* 99 % on the 30 images of val"):
        decision.rules(Wanted(abstain=0.99))
    with pytest.raises(UserError, match="keeps no scores"):
        Decision().rules(Wanted(abstain=0.5))
    with pytest.raises(UserError, match="keeps no scores"):
        Decision().rules(Wanted(coverage=0.5))


def test_a_card_keeps_the_answers() -> None:
    logits, targets = drawn(9000, 1.0, seed=2)
    answers = Answers.of(logits, targets)
    kept = answers.to_dict()
    assert Answers.from_dict(kept) == answers
    assert len(kept["right"]) == 1000
    few, every = answers.rule(0.9), Answers.of(logits[::9], targets[::9]).rule(0.9)
    assert few is not None
    assert every is not None
    assert few.answered / 9000 == pytest.approx(every.answered / 1000, abs=0.1)
    for broken in ([1], [*kept["right"][:-1], 10_000], "x"):
        with pytest.raises(ValueError):
            Answers.from_dict(kept | {"right": broken})
