"""Plan the phases of a recipe: their lengths in steps and their schedules."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.recipe.schema import TrainSection
from finetune.training.steps.schedule import Schedule

# The optimizer that solves the head instead of making gradient steps.
SOLVER = "lbfgs"


@dataclass(frozen=True)
class PhasePlan:
    """One phase: its number (0-based), its values from the recipe, and its length in optimizer steps.

    ``max_steps`` can end the last epoch early. A phase that solves its head (``optimizer: lbfgs``) is one
    step long; its ``weight_decay`` is None if cross-validation chooses it. A phase of a
    refit (``train.refit``) trains on val, too, so none of its epochs is evaluated.
    """

    number: int
    freeze: int | str
    optimizer: str
    lr: float
    head_lr_mult: float
    weight_decay: float | None
    layer_decay: float | None
    steps: int
    steps_per_epoch: int
    schedule: Schedule
    is_refit: bool = False

    @property
    def epochs(self) -> int:
        return math.ceil(self.steps / self.steps_per_epoch)


def plan_phases(
    train: TrainSection, batches_per_epoch: int, restarts: Mapping[int, int] | None = None
) -> list[PhasePlan]:
    """Plan the phases of ``train``, without those that ``max_steps`` leaves no step.

    Args:
        restarts: by phase, the step at which an extension restarted its schedule.
    """
    steps_per_epoch = math.ceil(batches_per_epoch / train.accumulate)
    left = train.max_steps if train.max_steps is not None else math.inf
    plans = []
    for number, section in enumerate(train.phases):
        per_epoch = 1 if section.optimizer == SOLVER else steps_per_epoch
        steps = int(min(section.epochs * per_epoch, left))
        if steps == 0:
            break
        left -= steps
        assert section.schedule is not None
        assert section.optimizer is not None
        begun = (restarts or {}).get(number, 0)
        warmup = round(_number(section.warmup_epochs) * per_epoch)
        schedule = Schedule(
            section.schedule,
            steps,
            warmup_steps=min(warmup, steps - 1),
            drop_every=train.step_epochs * per_epoch,
            gamma=train.step_gamma,
            begun=begun if begun < steps else 0,
        )
        plans.append(
            PhasePlan(
                number,
                section.freeze,
                section.optimizer,
                _number(section.lr),
                _number(section.head_lr_mult),
                None if section.weight_decay == "auto" else _number(section.weight_decay),
                section.layer_decay,
                steps,
                per_epoch,
                schedule,
            )
        )
    return plans


def _number(value: float | str | None) -> float:
    # A recipe replaces every auto and null when it is created.
    assert isinstance(value, float | int)
    return float(value)
