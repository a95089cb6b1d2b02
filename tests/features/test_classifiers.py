"""Classifiers converted to linear heads predict what scikit-learn predicts."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from finetune.data.holdout.folds import inner_folds
from finetune.errors import DataError
from finetune.features.classifiers import best_linear, fit_classifiers
from finetune.features.solve import LinearProblem, choose_decay


@pytest.mark.parametrize("classes", [2, 4])
def test_a_fused_head_is_the_classifier(classes: int) -> None:
    digits = load_digits()
    chosen = digits.target < classes
    features = (digits.data[chosen] * 3 + 5).astype(np.float32)
    targets = digits.target[chosen].astype(np.int64)
    train, held = slice(0, 200), slice(200, None)
    found = fit_classifiers(features[train], targets[train], classes, seed=0)
    assert [each.name for each in found] == ["svm", "logistic", "class_mean", "neighbours"]
    for each in found:
        theirs = each.predict(features[held])
        assert (theirs == targets[held]).mean() > 0.8
        assert each.cv_top1 > 0.9
        if each.head is not None:
            assert each.head.weight.shape == (classes, 64)
            logits = each.head.logits(features[held])
            assert np.array_equal(logits.argmax(1), theirs)
            # The probabilities are calibrated.
            confidence = np.exp(logits - logits.max(1, keepdims=True))
            confidence = (confidence / confidence.sum(1, keepdims=True)).max(1).mean()
            assert confidence > 0.8
    assert best_linear(found).cv_top1 == max(each.cv_top1 for each in found[:3])


def scenes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that identify the scene of an image; the class depends on the scene alone."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    features = rng.normal(size=(40, 32))[groups] + 0.01 * rng.normal(size=(240, 32))
    return features.astype(np.float32), groups % 2, groups


def test_groups_are_not_recognised() -> None:
    features, targets, groups = scenes()
    for alone, together in zip(
        fit_classifiers(features, targets, 2, seed=0),
        fit_classifiers(features, targets, 2, seed=0, groups=groups),
        strict=True,
    ):
        assert together.cv_top1 < 0.7
        if alone.name != "class_mean":
            assert alone.cv_top1 > 0.85
    free, held = (
        choose_decay(LinearProblem(features, targets, 2), inner_folds(targets, 0, each)).decay
        for each in (None, groups)
    )
    assert free < held


def test_groups_that_cannot_be_divided_are_an_error() -> None:
    features, targets, groups = scenes()
    with pytest.raises(DataError, match="two or more groups"):
        fit_classifiers(features, targets, 2, seed=0, groups=np.where(targets, 0, groups))
    assert (
        choose_decay(
            LinearProblem(features, targets, 2), inner_folds(targets, 0, np.where(targets, 0, groups))
        ).top1
        is None
    )


def test_constant_features_are_an_error() -> None:
    with pytest.raises(DataError, match="the same for every image"):
        fit_classifiers(np.ones((4, 2), np.float32), np.array([0, 0, 1, 1]), 2, seed=0)


def test_one_image_of_a_class_is_too_few() -> None:
    with pytest.raises(DataError, match="two or more"):
        fit_classifiers(np.zeros((3, 2), np.float32), np.array([0, 0, 1]), 2, seed=0)
