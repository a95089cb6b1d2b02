"""Metrics agree with scikit-learn, torch and closed forms."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference

from finetune.decision.probabilities import log_softmax, ranked, softmax
from finetune.errors import DataError, FinetuneError
from finetune.evaluation.metrics import CHUNK, calibration_error, classification_metrics
from finetune.evaluation.resampling import wilson


def drawn(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits that predict about half of the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), targets] += 1.5
    return logits, targets, [f"class {i}" for i in range(classes)]


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (300, 2), (500, 7), (CHUNK + 5, 6)])
def test_against_scikit_learn_and_torch(n: int, classes: int) -> None:
    logits, targets, names = drawn(n, classes)
    found = classification_metrics(logits, targets, names)
    predicted = logits.argmax(1)
    all_labels, seen = list(range(classes)), sorted(set(targets))

    assert found.n == n
    assert found.top1 == pytest.approx(reference.accuracy_score(targets, predicted))
    assert found.loss == pytest.approx(
        torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(targets)).item(), rel=1e-5
    )
    recalls = reference.recall_score(targets, predicted, labels=seen, average=None, zero_division=0)
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["macro_f1"] == pytest.approx(
        reference.f1_score(targets, predicted, labels=seen, average="macro", zero_division=0)
    )
    assert np.array_equal(found.confusion, reference.confusion_matrix(targets, predicted, labels=all_labels))
    for name, score in (("precision", reference.precision_score), ("recall", reference.recall_score)):
        expected = score(targets, predicted, labels=all_labels, average=None, zero_division=0)
        assert [getattr(entry, name) for entry in found.per_class] == pytest.approx(list(expected))
    assert [entry.support for entry in found.per_class] == np.bincount(targets, minlength=classes).tolist()
    if classes > 5:
        assert found["top5"] == pytest.approx(
            reference.top_k_accuracy_score(targets, logits, k=5, labels=all_labels)
        )
    else:
        assert found["top5"] is None
        assert "top5" not in found.to_dict()


def test_a_case_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]]))
    found = classification_metrics(logits, np.array([0, 1, 1, 0]), ["cat", "dog"])
    assert found.top1 == 0.75
    assert found.confusion.tolist() == [[2, 0], [1, 1]]  # rows true, columns predicted
    assert found.loss == pytest.approx(-math.log(0.7 * 0.4 * 0.8 * 0.9) / 4)
    assert [entry.to_dict() for entry in found.per_class] == [
        {
            "class": "cat",
            "precision": pytest.approx(2 / 3),
            "recall": 1.0,
            "f1": pytest.approx(0.8),
            "support": 2,
        },
        {"class": "dog", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
    ]
    # Each image is alone in its bin, with gaps of 0.3, 0.6, 0.2 and 0.1.
    assert found["ece"] == pytest.approx((0.3 + 0.6 + 0.2 + 0.1) / 4)


def test_averages_exclude_classes_without_images() -> None:
    logits = np.eye(3)[[0, 0, 1, 1]]
    found = classification_metrics(logits, np.array([0, 0, 1, 1]), ["a", "b", "never seen"])
    assert (found.top1, found["balanced_accuracy"], found["macro_f1"]) == (1.0, 1.0, 1.0)
    assert found.per_class[2].support == 0
    assert found.per_class[2].recall == 0.0


def test_of_equal_logits_the_lowest_index_wins() -> None:
    logits = np.zeros((6, 6))
    found = classification_metrics(logits, np.arange(6), list("abcdef"))
    assert found.top1 == pytest.approx(1 / 6)
    assert found["top5"] == pytest.approx(5 / 6)
    assert ranked(logits, 3).tolist() == [[0, 1, 2]] * 6


def test_huge_logits_stay_finite() -> None:
    logits = np.array([[3e38, -3e38], [-3e38, 3e38]], dtype=np.float32)
    found = classification_metrics(logits, np.array([0, 0]), ["a", "b"])
    assert math.isfinite(found.loss)
    assert softmax(logits).tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_an_error(value: float) -> None:
    logits, targets, names = drawn(10, 3)
    logits[4, 1] = value
    with pytest.raises(FinetuneError, match="1 of 10 images"):
        classification_metrics(logits, targets, names)


def test_no_images_are_an_error() -> None:
    with pytest.raises(DataError, match="no images"):
        classification_metrics(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), ["a", "b"])


@pytest.mark.parametrize("targets", [[0, 2], [0, -1], [0]])
def test_targets_outside_the_classes_are_refused(targets: list[int]) -> None:
    with pytest.raises(ValueError):
        classification_metrics(np.zeros((2, 2)), np.array(targets), ["a", "b"])


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_in_closed_form(case: tuple[int, int]) -> None:
    correct, n = case
    z, p = 1.959963984540054, correct / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = wilson(correct, n)
    assert low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-9)
    assert high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-9)
    assert 0 <= low <= p <= high <= 1


def test_wilson_matches_a_published_value() -> None:
    # The PyTorch transfer tutorial's 146 of 153 images, computed with R's prop.test(correct = FALSE).
    assert wilson(146, 153) == pytest.approx((0.9085, 0.9776), abs=2e-4)


def test_calibration_error_of_bins() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    assert calibration_error(confidence, correct) == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)
    # Bins are closed above, so 1/15 is in the first bin.
    assert calibration_error(np.array([1 / 15, 0.01]), np.array([True, False])) == pytest.approx(
        abs(1 - 1 / 15 - 0.01) / 2
    )
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0.0


logit_arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8),
    elements=st.floats(-1e4, 1e4, width=32),
)


@settings(max_examples=60)
@given(logit_arrays, st.randoms(use_true_random=False))
def test_any_logits_give_valid_json_within_range(logits: np.ndarray, random: object) -> None:
    n, classes = logits.shape
    targets = np.array([random.randrange(classes) for _ in range(n)])  # type: ignore[attr-defined]
    found = classification_metrics(logits, targets, [str(i) for i in range(classes)])
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    for name in ("top1", "top1_low", "top1_high", "balanced_accuracy", "macro_f1", "ece"):
        assert 0 <= again[name] <= 1
    assert again["top1_low"] <= again["top1"] <= again["top1_high"]
    assert np.sum(again["confusion"]) == n
    assert again["loss"] >= 0


@given(logit_arrays)
def test_log_softmax_is_that_of_torch(logits: np.ndarray) -> None:
    expected = torch.log_softmax(torch.tensor(logits, dtype=torch.float64), dim=1).numpy()
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-12, atol=1e-12)
