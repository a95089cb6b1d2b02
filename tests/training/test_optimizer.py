"""Optimizers, their named state, and the moving average."""

from typing import Any

import pytest
import torch
from torch import nn

from finetune.training.steps.ema import moving_average
from finetune.training.steps.optimizer import build_optimizer, load_named_state, named_state

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def groups(model: nn.Module, prefix: str = "") -> list[dict[str, Any]]:
    named = [(name, p) for name, p in model.named_parameters() if name.startswith(prefix)]
    return [
        {
            "name": "all",
            "params": [p for _, p in named],
            "param_names": [name for name, _ in named],
            "lr": 0.1,
            "weight_decay": 0.01,
        }
    ]


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_state_survives_by_name(kind: str) -> None:
    model, twin = network(), network()
    first = build_optimizer(kind, groups(model), momentum=0.9, device=CPU)
    step(model, first)
    twin.load_state_dict(model.state_dict())
    second = build_optimizer(kind, groups(twin), momentum=0.9, device=CPU)
    load_named_state(second, named_state(first))
    step(model, first)
    step(twin, second)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    fresh = build_optimizer(kind, groups(twin), momentum=0.9, device=CPU)
    assert named_state(fresh) == {}


def test_adamw_is_its_formula_on_weights_in_channels_last_format() -> None:
    """The fused form goes over memory and not over places: gradients must lie as their weights do."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 5, 1), nn.Flatten(), nn.Linear(180, 2)
    )
    model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer("adamw", groups(model), momentum=0.9, device=CPU)
    assert optimizer.defaults["fused"]
    expected = [parameter.detach().double() for parameter in model.parameters()]
    first, second = ([torch.zeros_like(each) for each in expected] for _ in range(2))
    for number in range(1, 5):
        optimizer.zero_grad()
        for _ in range(2):  # accumulated
            with torch.autocast("cpu", torch.bfloat16, enabled=number > 2):
                loss = model(torch.randn(2, 3, 10, 10)).square().sum()
            loss.backward()
        for parameter, weight, m, v in zip(model.parameters(), expected, first, second, strict=True):
            assert parameter.grad is not None
            gradient = parameter.grad.double()
            weight *= 1 - 0.1 * 0.01
            m.lerp_(gradient, 0.1)
            v.lerp_(gradient.square(), 0.001)
            weight -= 0.1 * (m / (1 - 0.9**number)) / ((v / (1 - 0.999**number)).sqrt() + 1e-8)
        optimizer.step()
        for parameter, weight in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.double(), weight, rtol=1e-5, atol=1e-5)


def test_a_thawed_parameter_starts_without_momentum_and_others_keep_theirs() -> None:
    model = network()
    head = build_optimizer("sgd", groups(model, "2."), momentum=0.9, device=CPU)
    step(model, head)
    everything = build_optimizer("sgd", groups(model), momentum=0.9, device=CPU)
    load_named_state(everything, named_state(head))
    assert set(named_state(everything)) == {"2.weight|momentum_buffer", "2.bias|momentum_buffer"}


def test_sgd_without_momentum_has_no_state() -> None:
    model = network()
    optimizer = build_optimizer("sgd", groups(model), momentum=0.0, device=CPU)
    step(model, optimizer)
    assert named_state(optimizer) == {}


def test_the_average_follows_its_closed_form() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    ema = moving_average(model, decay=0.9)
    expected = None
    for n, value in enumerate([1.0, 5.0, 2.0, 7.0]):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        if expected is None:
            expected = value  # the first update copies
        else:
            decay = min(0.9, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * value
    assert ema.module.get_parameter("weight").item() == pytest.approx(expected)


def test_the_average_of_a_frozen_parameter_is_the_parameter() -> None:
    model = nn.Linear(64, 64)
    ema = moving_average(model, decay=0.999)
    for _ in range(5):
        ema.update_parameters(model)
    assert torch.equal(ema.module.get_parameter("weight"), model.weight)
    with torch.no_grad():
        model.weight += 1
    ema.update_parameters(model)
    assert not torch.equal(ema.module.get_parameter("weight"), model.weight)
