"""Compiled training: the same network under the same names, and the same bits after a stop."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetune.data.batches.batch import Batch
from finetune.errors import UserError
from finetune.recipe.schema import TrainSection
from finetune.training.compute.compiled import Compiled
from finetune.training.compute.precision import choose_compute
from finetune.training.steps.loop import Stepper, Totals
from finetune.training.steps.schedule import Schedule

# torch's advice to users of the very first Python 3.13; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")

SIZES = (6, 6, 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    features = (nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(*features, nn.Dropout(0.2), nn.Flatten(), nn.Linear(8 * 36, 2))


def batch(size: int) -> Batch:
    generator = torch.Generator().manual_seed(size)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    labels = torch.randint(2, (size,), generator=generator)
    return Batch(images, labels, labels, tuple(range(size)), ())


def train(backend: str | None, start: int = 0, taken_up: dict[str, Tensor] | None = None) -> list[Any]:
    """The states after each of six steps, or of those from ``start`` on."""
    module = network()
    if taken_up is not None:
        module.load_state_dict(taken_up)
    compute = choose_compute(torch.device("cpu"), TrainSection(precision="bf16"))
    optimizer = torch.optim.SGD([{"params": list(module.parameters()), "lr": 0.1, "base_lr": 0.1}])
    loss, schedule = nn.CrossEntropyLoss(), Schedule("constant", 100)
    stepper = Stepper(module, optimizer, loss, schedule, compute, compute.scaler(), 0, str)
    if backend is not None:
        stepper.compiled = Compiled(stepper.forward, SIZES[0], backend)
    states = []
    for step in range(start, 6):
        stepper.step([batch(SIZES[step % 3])], Totals(), step, step)
        states.append({name: value.clone() for name, value in module.state_dict().items()})
    return states


def test_checkpoints_and_resumes_do_not_depend_on_compilation() -> None:
    plain, whole = train(None), train("aot_eager")
    assert whole[-1].keys() == plain[-1].keys() == network().state_dict().keys()
    resumed = train("aot_eager", 2, whole[1])
    assert all(torch.equal(resumed[-1][name], value) for name, value in whole[-1].items())


def test_only_whole_batches_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def compiled(module: nn.Module, **_options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        def call(images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return module(images)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    train("eager")
    assert seen == [6, 6, 6, 6]


@pytest.mark.slow
def test_kernels_compiled_for_this_machine() -> None:
    whole = train("inductor")
    resumed = train("inductor", 2, whole[1])
    assert all(torch.equal(resumed[-1][name], value) for name, value in whole[-1].items())


def test_a_network_that_cannot_be_compiled_is_a_user_error() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the compiler is out")

    with pytest.raises(UserError, match=r"train\.compile: true.*the compiler is out"):
        Compiled(network(), 6, broken)(batch(6).images)  # type: ignore[arg-type]
