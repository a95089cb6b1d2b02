"""The solved head against scikit-learn, and its gradient at the minimum."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from finetune.data.holdout.folds import inner_folds
from finetune.features.solve import GRID, LinearProblem, choose_decay, cross_entropy, solve, total_variance


def data(classes: int) -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    chosen = digits.target < classes
    return digits.data[chosen][:300] / 16, digits.target[chosen][:300].astype(np.int64)


def gradient(
    features: np.ndarray, targets: np.ndarray, head: object, decay: float, weights: list[float] | None
) -> float:
    """The gradient of the objective, computed by torch."""
    weight = torch.tensor(head.weight, requires_grad=True)  # type: ignore[attr-defined]
    bias = torch.tensor(head.bias, requires_grad=True)  # type: ignore[attr-defined]
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    criterion = torch.nn.CrossEntropyLoss(weight=given)
    logits = torch.from_numpy(features) @ weight.T + bias
    loss = criterion(logits, torch.from_numpy(targets)) + decay / 2 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert bias.grad is not None
    return max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_head_minimises_the_objective_of_the_phase(classes: int, balanced: bool) -> None:
    features, targets = data(classes)
    weights = [1.0 + 0.5 * c for c in range(classes)] if balanced else None
    head = solve(LinearProblem(features, targets, classes, weights), 1e-3)
    assert head.weight.shape == (classes, 64)
    assert gradient(features, targets, head, 1e-3, weights) < 1e-5
    assert gradient(features, targets, head, 2e-3, weights) > 1e-4  # the positive control


def test_weights_and_offsets_give_the_minimum_that_scipy_finds() -> None:
    features, targets = data(3)
    features, targets = features[targets != 0], targets[targets != 0] - 1
    features, targets = features[:120, 10:20], targets[:120]
    features = np.concatenate([features, features[targets == 0][:20] + 0.3])
    targets = np.concatenate([targets, np.full(20, 2)])
    weights, offsets, decay = [1.0, 3.0, 0.5], np.log([0.5, 0.3, 0.2]), 1e-2
    share = np.array(weights)[targets] / np.array(weights)[targets].sum()

    def objective(table: np.ndarray) -> float:
        weight, bias = table[:30].reshape(3, 10), table[30:]
        losses = cross_entropy(features @ weight.T + bias + offsets, targets)
        return float(losses @ share + decay / 2 * (weight**2).sum())

    theirs = minimize(objective, np.zeros(33), options={"gtol": 1e-7, "maxiter": 500}).x
    head = solve(LinearProblem(features, targets, 3, weights, offsets.tolist()), decay)
    ours = np.concatenate([head.weight.ravel(), head.bias])
    assert objective(ours) <= objective(theirs) + 1e-9
    np.testing.assert_allclose(head.weight.ravel(), theirs[:30], atol=2e-4)
    # Only differences of biases matter.
    np.testing.assert_allclose(head.bias - head.bias.mean(), theirs[30:] - theirs[30:].mean(), atol=2e-4)
    unadjusted = solve(LinearProblem(features, targets, 3, weights), decay)
    assert objective(np.concatenate([unadjusted.weight.ravel(), unadjusted.bias])) > objective(ours) + 1e-3


def test_offsets_change_held_out_logits_and_not_the_decay() -> None:
    features, targets = data(3)
    folds, offsets = inner_folds(targets, 0), [0.0, -1.0, 2.0]
    plain = choose_decay(LinearProblem(features, targets, 3), folds)
    adjusted = choose_decay(LinearProblem(features, targets, 3, None, offsets), folds)
    assert adjusted.decay == plain.decay
    assert plain.held is not None
    assert adjusted.held is not None
    np.testing.assert_allclose(adjusted.held, plain.held - np.array(offsets))
    assert adjusted.top1 == (adjusted.held.argmax(1) == targets).mean()
    assert (plain.held.argmax(1) == targets).mean() == plain.top1


def test_the_head_equals_scikit_learns() -> None:
    features, targets = data(10)
    head = solve(LinearProblem(features, targets, 10), 1e-2)
    theirs = LogisticRegression(C=1 / (1e-2 * len(targets)), tol=1e-6, max_iter=1000).fit(features, targets)
    np.testing.assert_allclose(head.logits(features), theirs.decision_function(features), atol=1e-3)
    np.testing.assert_allclose(
        cross_entropy(head.logits(features), targets),
        -np.log(theirs.predict_proba(features)[np.arange(len(targets)), targets]),
        atol=1e-4,
    )


def test_noisy_labels_get_a_stronger_decay() -> None:
    """Random labels get a strong decay, clean ones a weak one; the scale does not matter."""
    features, targets = data(3)
    noise = np.random.default_rng(0).integers(0, 3, len(targets))
    clean = choose_decay(LinearProblem(features, targets, 3), inner_folds(targets, 0)).decay
    assert choose_decay(LinearProblem(features, noise, 3), inner_folds(noise, 0)).decay > clean
    assert clean in [share * total_variance(features) for share in GRID]
    assert choose_decay(
        LinearProblem(features * 100, targets, 3), inner_folds(targets, 0)
    ).decay == pytest.approx(clean * 1e4)


def test_the_decay_chosen_from_rough_minima_is_good_for_exact_ones() -> None:
    rng = np.random.default_rng(0)
    targets, mixed = np.repeat(np.arange(4), 40), rng.normal(size=(40, 300))
    causes = rng.normal(size=(160, 40))
    causes[:, :4] += 2.5 * np.eye(4)[targets]
    features = causes @ mixed + 0.5 * rng.normal(size=(160, 300))
    total = total_variance(features)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(features, targets))

    def held_out_loss(decay: float) -> float:
        heads = [solve(LinearProblem(features[train], targets[train], 4), decay) for train, _ in folds]
        pairs = zip(heads, folds, strict=True)
        return sum(cross_entropy(h.logits(features[held]), targets[held]).sum() for h, (_, held) in pairs)

    losses = [held_out_loss(share * total) for share in GRID]
    assert max(losses) > 1.5 * min(losses)
    assert held_out_loss(
        choose_decay(LinearProblem(features, targets, 4), inner_folds(targets, 0)).decay
    ) < 1.1 * min(losses)


def test_a_class_with_one_image_is_not_cross_validated() -> None:
    features, targets = data(3)
    lonely = np.concatenate([np.flatnonzero(targets == 0), np.flatnonzero(targets > 0)[:1]])
    labels = (targets[lonely] > 0).astype(np.int64)
    assert choose_decay(LinearProblem(features[lonely], labels, 2), inner_folds(labels, 0)).decay in [
        share * total_variance(features[lonely]) for share in GRID
    ]
