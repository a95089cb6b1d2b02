"""The losses for uneven classes, against closed forms in NumPy and against torch's cross-entropy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.data.dataset import Split
from finetune.data.sources.named.drawn import draw_source
from finetune.errors import RecipeError
from finetune.model.auxiliary import loss_and_logits
from finetune.recipe.load import minimal_recipe
from finetune.recipe.schema import TrainSection
from finetune.training.setup.loss import loss_function
from finetune.training.steps.losses import FocalLoss, LogitAdjustedLoss

N, C = 7, 3
RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(N, C))
HARD = RNG.integers(0, C, N)
SOFT = RNG.dirichlet(np.ones(C), N)
WEIGHTS, OFFSETS = np.array([0.5, 1.0, 4.0]), np.log([0.7, 0.2, 0.1])


def closed_form(
    logits: NDArray[np.float64],
    targets: NDArray[Any],
    *,
    gamma: float = 0.0,
    offsets: NDArray[np.float64] | float = 0.0,
    weights: NDArray[np.float64] | None = None,
    smoothing: float = 0.0,
) -> float:
    """The loss, written out in float64."""
    weights = np.ones(C) if weights is None else weights
    shares = np.exp(logits + offsets)
    shares /= shares.sum(1, keepdims=True)
    soft = targets if targets.ndim == 2 else np.eye(C)[targets]
    total = len(logits) if targets.ndim == 2 else weights[targets].sum()
    soft = (1 - smoothing) * soft + smoothing / C
    return float(-(weights * soft * (1 - shares) ** gamma * np.log(shares)).sum() / total)


def derivative(form: Any, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Central differences."""
    found = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        move = np.zeros_like(logits)
        move[place] = 1e-5
        found[place] = (form(logits + move) - form(logits - move)) / 2e-5
    return found


def value_and_gradient(loss: nn.Module, targets: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    logits = torch.tensor(LOGITS, dtype=torch.float32, requires_grad=True)
    given = torch.from_numpy(targets)
    value: Tensor = loss(logits, given.float() if targets.ndim == 2 else given)
    value.backward()
    assert logits.grad is not None
    return value.item(), logits.grad.double().numpy()


@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("gamma", "offsets"), [(2.0, None), (0.5, None), (0.0, OFFSETS), (0.0, None)])
def test_value_and_gradient_are_those_of_the_closed_form(
    targets: NDArray[Any],
    weights: NDArray[np.float64] | None,
    smoothing: float,
    gamma: float,
    offsets: NDArray[np.float64] | None,
) -> None:
    weight = None if weights is None else torch.from_numpy(weights).float()
    loss: nn.Module = FocalLoss(gamma, weight, smoothing)
    if offsets is not None:
        loss = LogitAdjustedLoss(torch.from_numpy(offsets).float(), weight, smoothing)

    def form(logits: NDArray[np.float64]) -> float:
        shift = 0.0 if offsets is None else offsets
        return closed_form(logits, targets, gamma=gamma, offsets=shift, weights=weights, smoothing=smoothing)

    value, gradient = value_and_gradient(loss, targets)
    assert value == pytest.approx(form(LOGITS), rel=1e-5)
    np.testing.assert_allclose(gradient, derivative(form, LOGITS), atol=2e-6)


@pytest.mark.parametrize("sure", [30.0, 200.0, 1e4])
@pytest.mark.parametrize("gamma", [1e-3, 0.5, 2.0, 10.0])
def test_the_focal_gradient_is_finite_for_certain_predictions(sure: float, gamma: float) -> None:
    logits = torch.tensor([[sure, -sure], [-sure, sure]], requires_grad=True)
    FocalLoss(gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad[1, 0]) < -0.4  # the wrong one still counts


@pytest.mark.parametrize(
    "loss", [FocalLoss(2.0), LogitAdjustedLoss(torch.zeros(C))], ids=["focal", "adjusted"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_low_precision_give_a_loss_in_float32(loss: nn.Module, dtype: torch.dtype) -> None:
    logits, targets = torch.from_numpy(LOGITS).to(dtype), torch.from_numpy(HARD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, targets)
    assert value.dtype == torch.float32
    assert value.item() == loss(logits.float(), targets).item()


def uneven(counts: Sequence[int]) -> Split:
    split = draw_source(len(counts), max(counts), 8).splits["train"]
    rows = [np.flatnonzero(split.targets == number)[:count] for number, count in enumerate(counts)]
    return split.subset(np.concatenate(rows))


SPLIT = uneven([4, 2, 1])
NAMES = ("none", "balanced", "bus")


def loss_of(**keys: Any) -> nn.CrossEntropyLoss:
    return loss_function(TrainSection(**keys), SPLIT, NAMES)


@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_tau_0_and_gamma_0_are_cross_entropy_to_the_bit(targets: NDArray[Any]) -> None:
    plain = value_and_gradient(nn.CrossEntropyLoss(), targets)
    for keys in ({"logit_adjust": 0.0}, {"loss": "focal", "focal_gamma": 0.0}, {}):
        value, gradient = value_and_gradient(loss_of(**keys), targets)
        assert value == plain[0]
        np.testing.assert_array_equal(gradient, plain[1])
    assert value_and_gradient(loss_of(logit_adjust=1.0), targets)[0] != plain[0]
    assert value_and_gradient(loss_of(loss="focal"), targets)[0] != plain[0]


def test_logit_adjustment_uses_the_frequencies_of_train() -> None:
    loss = loss_of(logit_adjust=0.5)
    assert isinstance(loss, LogitAdjustedLoss)
    counts = np.bincount(SPLIT.targets)
    np.testing.assert_allclose(loss.offsets.numpy(), 0.5 * np.log(counts / counts.sum()), rtol=1e-6)


def test_balanced_weights_make_classes_count_the_same() -> None:
    counts = np.bincount(SPLIT.targets)
    balanced = loss_of(class_weights="balanced").weight
    assert balanced is not None
    np.testing.assert_allclose(balanced.numpy() * counts, [counts.sum() / 3] * 3, rtol=1e-6)
    assert loss_of().weight is None


def test_weights_by_name_are_the_balanced_ones_if_the_numbers_are_the_same() -> None:
    """Classes that are called none and balanced are classes like others, and only ratios matter."""
    counts = np.bincount(SPLIT.targets).tolist()
    balanced = loss_of(class_weights="balanced").weight
    for scale in (1.0, 3.0):
        named = dict(zip(NAMES, (scale / count for count in counts), strict=True))
        weight = loss_of(class_weights=named).weight
        assert weight is not None
        assert balanced is not None
        torch.testing.assert_close(weight, balanced, rtol=1e-6, atol=0)


def test_a_class_that_is_not_named_weighs_1() -> None:
    weight = loss_of(class_weights={"none": 4.0}).weight
    assert weight is not None
    np.testing.assert_allclose((weight / weight[1]).numpy(), [4.0, 1.0, 1.0], rtol=1e-6)


def test_all_unknown_classes_are_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        loss_of(class_weights={"bus": 2.0, "balancd": 2.0, "x\ny": 3.0})
    assert caught.value.problems == [
        "train.class_weights: the data has no class 'balancd'. Did you mean 'balanced'?",
        r"train.class_weights: the data has no class 'x\ny'. Its classes: none, balanced, bus.",
    ]


def test_auxiliary_heads_get_the_same_loss() -> None:
    from torchvision.models.inception import InceptionOutputs

    logits, targets = torch.from_numpy(LOGITS).float(), torch.from_numpy(HARD)
    for keys in ({"logit_adjust": 1.0}, {"loss": "focal"}, {"class_weights": {"bus": 5.0}}):
        loss = loss_of(**keys)
        both, _ = loss_and_logits(loss, InceptionOutputs(logits, 2 * logits), targets)
        assert both.item() == pytest.approx((loss(logits, targets) + 0.4 * loss(2 * logits, targets)).item())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["train.class_weights=balanced"], ["class_weights", "correct uneven classes twice"]),
        (["train.sampler=balanced"], ["sampler", "nothing to correct under sampler: balanced"]),
        (["train.loss=focal"], ["loss", "defined for cross_entropy"]),
    ],
)
def test_contradictions_are_errors_at_both_keys(settings: list[str], says: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        minimal_recipe("digits", "resnet18", overrides=["train.logit_adjust=1", *settings])
    assert len(caught.value.problems) == 2
    for key in (says[0], "logit_adjust"):
        assert [
            f"train.{key}: logit_adjust" in each and says[1] in each for each in caught.value.problems
        ].count(True) == 1
    # Alone, and with a logit adjustment of nothing, each is allowed.
    for alone in (settings, ["train.logit_adjust=0", *settings], ["train.logit_adjust=1"]):
        minimal_recipe("digits", "resnet18", overrides=alone)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("balancd", "one of none, balanced"),
        ("{cat: 0}", "a number from 0.001 to 1000"),
        ("{cat: 1001, dog: heavy}", "a number from 0.001 to 1000"),
        ("3", "a mapping"),
        ("{'': 2}", "class_weights"),
    ],
)
def test_wrong_weights_are_refused(value: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        minimal_recipe("digits", "resnet18", overrides=[f"train.class_weights={value}"])
    assert len(caught.value.problems) == (2 if "dog" in value else 1)
    assert all(says in each for each in caught.value.problems)
