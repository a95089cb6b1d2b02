"""Trust: how often predictions are right, by their probability."""

import numpy as np
import pytest

from finetune.evaluation.evaluate import Collected
from finetune.evaluation.metrics import classification_metrics
from finetune.evaluation.resampling import wilson
from finetune.reporting.cases import Predictions
from finetune.reporting.trust import confused_pairs, measure_trust, weakest


def predictions(confidence: float, right: int, wrong: int) -> Predictions:
    """Two classes; every prediction is class 0 with this probability."""
    odds = np.log(confidence / (1 - confidence))
    logits = np.tile(np.array([[odds, 0.0]], np.float32), (right + wrong, 1))
    targets = np.repeat([0, 1], [right, wrong])
    return Predictions.of(Collected(logits, targets, np.arange(right + wrong), ()), ("a", "b"))


@pytest.mark.parametrize(
    ("confidence", "right", "wrong", "verdict"),
    [(0.9, 86, 14, "honest"), (0.9, 60, 40, "too high"), (0.6, 90, 10, "too low")],
)
def test_probabilities_are_compared_with_what_is_right(
    confidence: float, right: int, wrong: int, verdict: str
) -> None:
    found = predictions(confidence, right, wrong)
    metrics = classification_metrics(found.collected.logits, found.targets, ["a", "b"])
    trust = measure_trust(found, metrics)
    assert trust.verdict == verdict
    assert trust.whole.share == metrics.top1
    assert trust.whole.said == pytest.approx(confidence)
    assert trust.whole.interval == wilson(right, right + wrong)
    assert trust.baseline == max(right, wrong) / 100
    assert [each.n for each in trust.bins] == [100]
    if confidence == 0.9:
        assert trust.at_said is not None
        assert (trust.at_said.right, trust.at_said.n) == (right, 100)
        assert [each.low for each in trust.thresholds][:3] == [0.0, 0.5, 0.7]
    else:
        assert trust.at_said is None


def test_worst_and_least_certain_and_cells() -> None:
    logits = np.array([[3, 0, 0], [0.1, 0, -5], [0, 5, 0], [0, 1, 0]], np.float32)
    found = Predictions.of(Collected(logits, np.array([0, 0, 2, 0]), np.arange(4), ()), ("a", "b", "c"))
    assert found.worst(9) == [2, 3]
    assert found.least_certain(2) == [1, 3]
    assert found.cells() == {(0, 0): [0, 1], (2, 1): [2], (0, 1): [3]}
    assert [each for each, _ in found.best(2, 2)] == [1, 0]
    metrics = classification_metrics(logits, found.targets, ["a", "b", "c"])
    assert weakest(metrics, 3) == [2, 0]
    assert confused_pairs(metrics.confusion, 5) == [(0, 1), (2, 1)]
