"""Newton's method against the gradient of torch, and the starting points of the search."""

import numpy as np
import pytest
import torch

from finetune.data.holdout.folds import inner_folds
from finetune.features import newton
from finetune.features import solve as solving
from finetune.features.newton import refine
from finetune.features.softmax import Axes, Minimum, Objective, Tolerance, extrapolate, mean_of, minimise
from finetune.features.solve import LinearProblem, choose_decay, solve


def clouds(classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.arange(120) % classes
    features = rng.normal(size=(120, 40)) + apart * rng.normal(size=(classes, 40))[targets] + 3
    return features.astype(np.float32), targets.astype(np.int64)


def gradient(objective: Objective, at: Minimum) -> float:
    weight, bias = at.weight.clone().requires_grad_(), at.bias.clone().requires_grad_()
    weights = objective.class_weights
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    logits = objective.rows @ weight.T + bias
    loss = torch.nn.CrossEntropyLoss(weight=given)(logits, torch.from_numpy(objective.targets))
    (loss + objective.decay / 2 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    return max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))


def zero(classes: int, axes: Axes) -> Minimum:
    width = axes.rows.shape[1]
    return Minimum(torch.zeros(classes, width).double(), torch.zeros(classes).double(), False)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("apart", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("decay", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("weighted", [False, True])
def test_single_precision_steps_reach_the_minimum_of_double_precision(
    classes: int, apart: float, decay: float, weighted: bool
) -> None:
    features, targets = clouds(classes, apart)
    weights = [1.0 + each for each in range(classes)] if weighted else None
    axes = Axes.of(features)
    objective = Objective(axes.rows, axes.variances, targets, classes, decay, weights)
    start = minimise(objective, tolerance=Tolerance(share=1e-2), max_steps=100)
    found = refine(objective, start, tolerance=1e-9)
    assert found.converged
    assert gradient(objective, start) > 1e-7  # the positive control
    assert gradient(objective, found) <= 1.01e-9
    # A common shift of all biases changes nothing, and stays as it was.
    assert float(found.bias.sum()) == pytest.approx(float(start.bias.sum()), abs=1e-6)


def test_a_missed_tolerance_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = clouds(3, 1.0)
    axes = Axes.of(features)
    monkeypatch.setattr(newton, "STEPS", 1)
    objective = Objective(axes.rows, axes.variances, targets, 3, 1e-4)
    assert not refine(objective, zero(3, axes), tolerance=1e-9).converged


def test_lbfgs_finishes_if_newton_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "EXACT", 1e-9)
    features, targets = clouds(3, 1.0)
    whole = solve(LinearProblem(features, targets, 3), 1e-2)
    monkeypatch.setattr(newton, "STEPS", 0)
    np.testing.assert_allclose(
        solve(LinearProblem(features, targets, 3), 1e-2).weight, whole.weight, atol=1e-4
    )


@pytest.mark.parametrize("apart", [0.3, 3.0])
def test_the_start_does_not_change_the_head(apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "EXACT", 1e-9)
    features, targets = clouds(4, apart)
    problem = LinearProblem(features, targets, 4)
    chosen = choose_decay(problem, inner_folds(targets, 0))
    assert chosen.start is not None
    alone, led = (solve(problem, chosen.decay, start=start) for start in (None, chosen.start))
    np.testing.assert_allclose(alone.logits(features), led.logits(features), atol=1e-3)


def test_a_search_starts_where_the_last_two_minima_point_to() -> None:
    minima = [
        Minimum(torch.full((2, 3), each).double(), torch.tensor([each, -each]).double(), True)
        for each in (1.0, 4.0, 6.0)
    ]
    assert extrapolate([]) is None
    assert extrapolate(minima[:2]) is minima[1]
    led = extrapolate(minima)
    assert led is not None
    assert led.weight.unique().tolist() == [8.0]
    assert led.bias.tolist() == [8.0, -8.0]
    assert mean_of(minima[:2]).bias.tolist() == [2.5, -2.5]
