"""Phases in steps, and the position of a run."""

import json
from typing import Any

import pytest

from finetune.errors import CheckpointError
from finetune.recipe.schema import Recipe
from finetune.training.run.position import Best, Position
from finetune.training.setup.plan import plan_phases
from finetune.training.steps.loop import Totals


def recipe(**train: Any) -> Recipe:
    return Recipe.model_validate(
        {"data": {"source": "digits"}, "model": {"backbone": "resnet18"}, "train": train}, strict=False
    )


def test_steps_epochs_and_schedules() -> None:
    train = recipe(
        accumulate=4, warmup_epochs=0.5, phases=[{"epochs": 2}, {"epochs": 3, "schedule": "step"}]
    ).train
    first, second = plan_phases(train, batches_per_epoch=10)
    assert (first.steps_per_epoch, first.steps, first.epochs) == (3, 6, 2)
    assert first.schedule.warmup_steps == 2  # half of three, rounded to even
    assert (second.number, second.steps, second.schedule.kind, second.schedule.drop_every) == (
        1,
        9,
        "step",
        30,
    )


@pytest.mark.parametrize(
    ("most", "steps", "epochs"),
    [(1, [1], [1]), (20, [20], [2]), (25, [20, 5], [2, 1]), (999, [20, 30], [2, 3])],
)
def test_max_steps_ends_the_run(most: int, steps: list[int], epochs: list[int]) -> None:
    plans = plan_phases(recipe(max_steps=most, phases=[{"epochs": 2}, {"epochs": 3}]).train, 10)
    assert [plan.steps for plan in plans] == steps
    assert [plan.epochs for plan in plans] == epochs
    assert all(plan.schedule.steps == plan.steps for plan in plans)


def test_a_position_survives_json() -> None:
    position = Position(
        epoch=3, totals=Totals(7, 0.1 + 0.2, 5, 1), best=Best(2, 1 / 3, 0.7, 0.3), frozen={"a": "b"}
    )
    assert Position.from_dict(json.loads(json.dumps(position.to_dict())), "state.json") == position


@pytest.mark.parametrize("value", [None, [], {}, {"format": 2}, {"format": 1, "epok": 3}])
def test_a_foreign_state_is_refused(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"state\.json"):
        Position.from_dict(value, "state.json")
