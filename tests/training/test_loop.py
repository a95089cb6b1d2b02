"""The steps of an epoch, on networks small enough to know the answer."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from finetune.data.batches.batch import Batch
from finetune.errors import NonFiniteLossError
from finetune.recipe.schema import TrainSection
from finetune.training.compute.precision import choose_compute
from finetune.training.steps.loop import Stepper, Totals
from finetune.training.steps.schedule import Schedule

COMPUTE = choose_compute(torch.device("cpu"), TrainSection(precision="fp32"))


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(12, 3))


def batches(sizes: list[int]) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(sum(sizes), 3, 2, 2, generator=generator)
    labels = torch.randint(3, (sum(sizes),), generator=generator)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        yield Batch(images[part], labels[part], labels[part], tuple(range(start, start + size)), ())
        start += size


def stepper(model: nn.Module, **options: Any) -> Stepper:
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr": 0.5, "base_lr": 0.5}])
    settings = {
        "model": model,
        "optimizer": optimizer,
        "criterion": nn.CrossEntropyLoss(),
        "schedule": Schedule("constant", 100),
        "compute": COMPUTE,
        "scaler": COMPUTE.scaler(),
        "seed": 0,
        "name": "image {}".format,
    } | options
    return Stepper(**settings)  # type: ignore[arg-type]


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("sizes", [[4, 4], [5, 2], [1, 6, 3]])
def test_accumulated_batches_are_one_large_batch(sizes: list[int]) -> None:
    whole, parts = network(), network()
    list(stepper(whole).epoch(batches([sum(sizes)]), Totals(), 0, 0))
    made = list(stepper(parts, accumulate=len(sizes)).epoch(batches(sizes), Totals(), 0, 0))
    assert made == [1]
    torch.testing.assert_close(weights(parts), weights(whole))
    assert not torch.equal(weights(parts), weights(network()))


def test_a_short_last_group_is_a_step_too() -> None:
    model = network()
    assert list(stepper(model, accumulate=2).epoch(batches([2, 2, 2]), Totals(), 0, 0)) == [1, 2]


def test_totals_are_sums_over_images() -> None:
    model = network().eval()
    for p in model.parameters():
        p.requires_grad_(True)
    totals = Totals()
    frozen_rate = Schedule("step", 10, drop_every=1, gamma=1e-30)
    list(stepper(model, schedule=frozen_rate).epoch(batches([4]), totals, 5, 0))
    (batch,) = batches([4])
    logits = network()(batch.images)
    assert totals.images == 4
    assert totals.metrics()["train_loss"] == pytest.approx(
        nn.functional.cross_entropy(logits, batch.labels).item()
    )
    assert totals.correct == int((logits.argmax(1) == batch.labels).sum())


def test_the_rate_is_the_scheduled_one() -> None:
    model = network()
    made = stepper(model, schedule=Schedule("step", 10, drop_every=1, gamma=0.5))
    list(made.epoch(batches([2, 2]), Totals(), 3, 0))
    assert made.optimizer.param_groups[0]["lr"] == 0.5 * 0.5**4


def test_dropout_depends_on_seed_and_step_alone() -> None:
    def trained(seed: int, step: int, disturb: bool) -> torch.Tensor:
        model = network(dropout=0.5)
        torch.manual_seed(99 if disturb else 1)
        list(stepper(model, seed=seed).epoch(batches([4]), Totals(), 0, step))
        return weights(model)

    assert torch.equal(trained(0, 7, False), trained(0, 7, True))
    assert not torch.equal(trained(0, 7, False), trained(0, 8, False))
    assert not torch.equal(trained(0, 7, False), trained(1, 7, False))


def test_clipping_bounds_the_step() -> None:
    model = network()
    before = weights(model)
    list(stepper(model, grad_clip_norm=1e-3).epoch(batches([4]), Totals(), 0, 0))
    assert (weights(model) - before).norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    model = network()
    before = weights(model)

    def spoiled() -> Iterator[Batch]:
        good, bad = batches([4, 4])
        bad.images[1] = float("nan")
        yield good
        yield bad

    made = stepper(model, accumulate=2)
    with pytest.raises(NonFiniteLossError, match=r"that of the images\. .* image 5"):
        list(made.epoch(spoiled(), Totals(), 0, 0))
    assert torch.equal(weights(model), before)
    list(stepper(model).epoch(batches([4]), Totals(), 0, 0))
    assert not torch.equal(weights(model), before)


def test_the_first_layer_that_is_not_finite_is_named() -> None:
    model = nn.Sequential(network(), nn.Linear(3, 3))
    with torch.no_grad():
        model.get_parameter("0.2.bias")[1] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"is that of 0\.2\."):
        list(stepper(model).epoch(batches([4]), Totals(), 0, 0))


def test_a_gradient_that_is_not_finite_stops_before_the_update() -> None:
    class Cliff(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    class Spoiler(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Cliff.apply(x)

    model = nn.Sequential(network(), Spoiler())
    before = weights(model)
    with pytest.raises(NonFiniteLossError, match="the gradient is not finite at step 8"):
        list(stepper(model).epoch(batches([4]), Totals(), 0, 7))
    assert torch.equal(weights(model), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["auto", "fp16", "bf16"])
def test_the_same_code_trains_on_cuda(precision: Any) -> None:
    compute = choose_compute(torch.device("cuda"), TrainSection(precision=precision))
    model = network().cuda()
    before = weights(model)
    list(stepper(model, compute=compute, scaler=compute.scaler()).epoch(batches([4, 4]), Totals(), 0, 0))
    assert not torch.equal(weights(model), before)
