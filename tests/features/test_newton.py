"""The last stretch to the minimum, and where searches set out from."""

import numpy as np
import pytest
import torch

from finetune.data.holdout.folds import inner_folds
from finetune.features import newton
from finetune.features import solve as solving
from finetune.features.newton import refine
from finetune.features.softmax import Axes, Enough, Minimum, ahead, mean_of, minimise
from finetune.features.solve import choose_decay, solve


def clouds(classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.arange(120) % classes
    features = rng.normal(size=(120, 40)) + apart * rng.normal(size=(classes, 40))[targets] + 3
    return features.astype(np.float32), targets.astype(np.int64)


def gradient(
    axes: Axes, targets: np.ndarray, decay: float, weights: list[float] | None, at: Minimum
) -> float:
    weight, bias = at.weight.clone().requires_grad_(), at.bias.clone().requires_grad_()
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    logits = axes.rows @ weight.T + bias
    loss = torch.nn.CrossEntropyLoss(weight=given)(logits, torch.from_numpy(targets))
    (loss + decay / 2 * weight.square().sum()).backward()
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
def test_single_precision_steps_end_at_the_minimum_of_double(
    classes: int, apart: float, decay: float, weighted: bool
) -> None:
    features, targets = clouds(classes, apart)
    weights = [1.0 + each for each in range(classes)] if weighted else None
    axes = Axes.of(features)
    start = minimise(
        axes.rows, axes.variances, targets, classes, decay, weights, enough=Enough(share=1e-2), steps=100
    )
    found = refine(axes, targets, decay, weights, start, enough=1e-9)
    assert found.reached
    assert gradient(axes, targets, decay, weights, start) > 1e-7  # the positive control
    assert gradient(axes, targets, decay, weights, found) <= 1.01e-9
    # What adds to all biases changes nothing, and is left as it was.
    assert float(found.bias.sum()) == pytest.approx(float(start.bias.sum()), abs=1e-6)


def test_it_says_when_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = clouds(3, 1.0)
    axes = Axes.of(features)
    monkeypatch.setattr(newton, "STEPS", 1)
    assert not refine(axes, targets, 1e-4, None, zero(3, axes), enough=1e-9).reached


def test_the_head_is_at_its_minimum_where_newton_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "EXACT", 1e-9)
    features, targets = clouds(3, 1.0)
    whole = solve(features, targets, 3, 1e-2)
    monkeypatch.setattr(newton, "STEPS", 0)
    np.testing.assert_allclose(solve(features, targets, 3, 1e-2).weight, whole.weight, atol=1e-4)


@pytest.mark.parametrize("apart", [0.3, 3.0])
def test_where_it_sets_out_from_does_not_change_the_head(
    apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solving, "EXACT", 1e-9)
    features, targets = clouds(4, apart)
    axes = Axes.of(features)
    chosen = choose_decay(features, targets, 4, inner_folds(targets, 0), axes=axes)
    assert chosen.start is not None
    alone, led = (
        solve(features, targets, 4, chosen.decay, axes=axes, start=start) for start in (None, chosen.start)
    )
    np.testing.assert_allclose(alone.logits(features), led.logits(features), atol=1e-3)


def test_a_search_sets_out_where_the_last_two_minima_lead() -> None:
    minima = [
        Minimum(torch.full((2, 3), each).double(), torch.tensor([each, -each]).double(), True)
        for each in (1.0, 4.0, 6.0)
    ]
    assert ahead([]) is None
    assert ahead(minima[:2]) is minima[1]
    led = ahead(minima)
    assert led is not None
    assert led.weight.unique().tolist() == [8.0]
    assert led.bias.tolist() == [8.0, -8.0]
    assert mean_of(minima[:2]).bias.tolist() == [2.5, -2.5]
