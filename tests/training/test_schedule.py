"""Schedules against torch's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from finetune.training.steps.schedule import Schedule


def factors(make: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler: LRScheduler = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def ours(schedule: Schedule) -> list[float]:
    return [schedule.factor(step) for step in range(schedule.steps)]


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_cosine_is_torchs(steps: int) -> None:
    expected = factors(lambda o: CosineAnnealingLR(o, T_max=steps), steps)
    assert ours(Schedule("cosine", steps)) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [10, 37, 100])
def test_one_cycle_is_torchs(steps: int) -> None:
    expected = factors(
        lambda o: OneCycleLR(o, max_lr=1.0, total_steps=steps + 1, cycle_momentum=False), steps + 1
    )
    assert ours(Schedule("one_cycle", steps + 1)) == pytest.approx(expected)


def test_step_is_torchs() -> None:
    expected = factors(lambda o: StepLR(o, step_size=5, gamma=0.2), 23)
    assert ours(Schedule("step", 23, drop_every=5, gamma=0.2)) == pytest.approx(expected)


def test_constant_is_constant() -> None:
    assert ours(Schedule("constant", 4)) == [1.0] * 4


def test_warmup_rises_linearly_and_cosine_follows() -> None:
    expected = factors(
        lambda o: SequentialLR(
            o,
            [LinearLR(o, start_factor=1 / 5, total_iters=4), CosineAnnealingLR(o, T_max=16)],
            milestones=[4],
        ),
        20,
    )
    assert ours(Schedule("cosine", 20, warmup_steps=4)) == pytest.approx(expected)


@given(
    st.sampled_from(["cosine", "one_cycle", "step", "constant"]),
    st.integers(1, 300),
    st.integers(0, 299),
)
def test_every_factor_is_a_rate(kind: str, steps: int, warmup: int) -> None:
    warmup = 0 if kind == "one_cycle" else min(warmup, steps - 1)
    found = ours(Schedule(kind, steps, warmup_steps=warmup, drop_every=10))
    assert all(0 <= factor <= 1 for factor in found)
    assert found[0] > 0
