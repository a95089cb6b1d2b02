"""The phases of a recipe, counted out in steps before anything is trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.recipe.schema import TrainSection
from finetune.training.steps.schedule import Schedule

# The optimizer that makes no steps.
SOLVER = "lbfgs"


@dataclass(frozen=True)
class PhasePlan:
    """One phase: its place (0-based), what the recipe settled for it, and its length in optimizer steps.

    The last epoch is partial where ``max_steps`` ends it. A phase that is solved (``optimizer: lbfgs``) is
    one step long; its ``weight_decay`` is None where cross-validation is to choose it.
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

    @property
    def epochs(self) -> int:
        return math.ceil(self.steps / self.steps_per_epoch)


def plan_phases(
    train: TrainSection, batches_per_epoch: int, restarts: Mapping[int, int] | None = None
) -> list[PhasePlan]:
    """Count out ``train``'s phases; those that ``max_steps`` leaves no step are left out.

    Args:
        restarts: by phase, the step at which its schedule begins anew, where a run was extended.
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
        warmup = round(_settled(section.warmup_epochs) * per_epoch)
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
                _settled(section.lr),
                _settled(section.head_lr_mult),
                None if section.weight_decay == "auto" else _settled(section.weight_decay),
                section.layer_decay,
                steps,
                per_epoch,
                schedule,
            )
        )
    return plans


def _settled(value: float | str | None) -> float:
    # A recipe fills in every auto and null when it is made.
    assert isinstance(value, float | int)
    return float(value)
