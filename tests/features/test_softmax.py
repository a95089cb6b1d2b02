"""Softmax regression along principal axes has the same minimum and decay as without."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from finetune.data.holdout.folds import inner_folds
from finetune.features.softmax import Axes
from finetune.features.solve import (
    EQUAL,
    GRID,
    LinearProblem,
    choose_decay,
    cross_entropy,
    rows_of,
    solve,
    total_variance,
)


def clouds(number: int, width: int, classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Features with a few strong and many weak directions, far from zero, as a network's are."""
    rng = np.random.default_rng(0)
    targets = np.arange(number) % classes
    spread = np.arange(1, width + 1) ** -0.8
    means = rng.normal(size=(classes, width)) * spread * apart
    means[:, 20:] = 0
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    features = (means[targets] + rng.normal(size=(number, width)) * spread) @ turn + 5
    return features.astype(np.float32), targets.astype(np.int64)


def scikit_learns(
    features: np.ndarray, targets: np.ndarray, decay: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's minimum of the same objective."""
    classes, share = int(targets.max()) + 1, None if weights is None else weights[targets]
    total = len(targets) if share is None else share.sum()
    strength = (2 if classes == 2 else 1) / (decay * total)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=strength, tol=1e-9, max_iter=1000)
        # It converges slowly for features far from zero.
        model.fit(features - features.mean(0, dtype=np.float64), targets, sample_weight=share)
    weight, bias = rows_of(model.coef_, model.intercept_)
    return weight, bias - weight @ features.mean(0, dtype=np.float64)


@pytest.mark.parametrize(("number", "width"), [(60, 100), (100, 60), (61, 60), (30, 400)])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_minimum_equals_scikit_learns(number: int, width: int, classes: int, weighted: bool) -> None:
    features, targets = clouds(number, width, classes, 1.0)
    weights = np.linspace(1, 2, classes) if weighted else None
    decay = 1e-2 * total_variance(features)
    head = solve(LinearProblem(features, targets, classes, None if weights is None else list(weights)), decay)
    weight, bias = scikit_learns(features, targets, decay, weights)
    np.testing.assert_allclose(head.weight, weight, atol=1e-4 * np.abs(weight).max())
    logits = features @ weight.T + bias
    np.testing.assert_allclose(
        head.logits(features) - head.logits(features).mean(1, keepdims=True),
        logits - logits.mean(1, keepdims=True),
        atol=1e-3,
    )


@pytest.mark.parametrize(("number", "width"), [(60, 100), (100, 60)])
@pytest.mark.parametrize(("classes", "apart"), [(2, 1.0), (5, 0.4), (5, 1.0), (5, 3.0)])
def test_the_decay_is_that_of_exact_minima(number: int, width: int, classes: int, apart: float) -> None:
    features, targets = clouds(number, width, classes, apart)
    total, folds = total_variance(features), inner_folds(targets, 0)
    unit = features / np.sqrt(total)
    losses = []
    for share in GRID[:3]:
        loss = 0.0
        for train, held in folds:
            weight, bias = scikit_learns(unit[train], targets[train], share)
            loss += cross_entropy(unit[held] @ weight.T + bias, targets[held]).sum() / number
        losses.append(loss)
    chosen = choose_decay(LinearProblem(features, targets, classes), folds).decay / total
    falls = [after < before - EQUAL for before, after in itertools.pairwise(losses)]
    place = falls.index(False) if False in falls else len(falls)
    if place < len(falls):
        assert chosen == pytest.approx(GRID[place])
    else:
        assert chosen <= GRID[place] * 1.01


def test_axes_lose_nothing() -> None:
    for number, width in ((40, 90), (90, 40)):
        features, _ = clouds(number, width, 3, 1.0)
        axes = Axes.of(features)
        assert axes.rows.shape[1] <= min(number, width)
        back = axes.rows @ axes.turn.T * axes.scale + axes.mean
        np.testing.assert_allclose(back.numpy(), features, atol=1e-5)
        gram = axes.turn.T @ axes.turn
        np.testing.assert_allclose(gram.numpy(), np.eye(len(gram)), atol=1e-10)
        assert float(axes.variances.sum()) == pytest.approx(1.0)


def test_constant_features_have_a_solution() -> None:
    features, targets = np.ones((8, 5), np.float32), np.repeat([0, 1], 4).astype(np.int64)
    head = solve(LinearProblem(features, targets, 2), 1e-3)
    assert np.abs(head.weight).max() == 0
    np.testing.assert_allclose(head.logits(features), 0, atol=1e-6)


def test_the_same_features_give_the_same_bits() -> None:
    features, targets = clouds(80, 50, 4, 1.0)
    folds = inner_folds(targets, 0)
    first, second = (
        solve(
            LinearProblem(features, targets, 4),
            choose_decay(LinearProblem(features, targets, 4), folds).decay,
        )
        for _ in range(2)
    )
    assert np.array_equal(first.weight, second.weight)
    assert np.array_equal(first.bias, second.bias)


def test_threads_change_only_the_rounding() -> None:
    features, targets = clouds(80, 50, 4, 1.0)
    before = torch.get_num_threads()
    heads = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            heads.append(solve(LinearProblem(features, targets, 4), 1e-3))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(heads[0].weight, heads[1].weight, atol=1e-5)
