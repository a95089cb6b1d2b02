"""Not sure: the goal is reached on average, and what a card keeps."""

import numpy as np
import pytest

from decision.test_calibration import drawn
from finetune.decision.abstain import Answers
from finetune.decision.decision import Decision
from finetune.decision.wanted import Wanted
from finetune.errors import UserError


def test_the_accuracy_among_the_answered_reaches_the_goal_on_average() -> None:
    accuracy, answered = [], []
    for seed in range(200):
        logits, targets = drawn(1200, 1.0, seed)
        rule = Answers.of(logits[:200], targets[:200]).rule(0.9)
        if rule is None:
            continue
        sure = rule.is_sure(logits[200:])
        answered.append(sure.mean())
        accuracy.append((logits[200:].argmax(axis=1) == targets[200:])[sure].mean())
    assert len(accuracy) > 180
    assert np.mean(accuracy) >= 0.9
    assert 0.2 < np.mean(answered) < 0.9
    assert np.mean(drawn(1000, 1.0, 0)[0].argmax(axis=1) == drawn(1000, 1.0, 0)[1]) < 0.85  # the control


def test_the_rule_is_the_largest_share_that_reaches_the_goal() -> None:
    """Of six images, the surest first: right, right, wrong, right, right, right."""
    logits = np.array([[x, 0] for x in (6, 5, 4, 3, 2, 1)], dtype=np.float32)
    answers = Answers.of(logits, np.array([0, 0, 1, 0, 0, 0]))
    found = answers.rule(0.6)
    assert found is not None
    assert (found.answered, found.right, found.n) == (6, 5, 6)
    found = answers.rule(0.5)
    assert found is not None
    assert found.is_sure(logits).tolist() == [True] * 6
    assert answers.rule(0.7) is None  # one mistake more than the one seen: four of six


def test_equal_probabilities_are_answered_together() -> None:
    logits = np.array([[3, 0]] * 4 + [[1, 0]] * 4, dtype=np.float32)
    answers = Answers.of(logits, np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    found = answers.rule(0.7)
    assert found is not None
    assert (found.answered, found.right) == (4, 4)


def test_a_goal_that_nothing_reaches_is_refused() -> None:
    logits, targets = drawn(30, 1.0, seed=1)
    decision = Decision(answers=Answers.of(logits, targets))
    with pytest.raises(UserError, match=r"no threshold reaches .* 99 % on the 30 images of val"):
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
