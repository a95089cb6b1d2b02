"""The phases of a recipe, counted out in steps before anything is trained."""

import math
from dataclasses import dataclass

from finetune.recipe.schema import PhaseSection, TrainSection
from finetune.training.schedule import Schedule


@dataclass(frozen=True)
class PhasePlan:
    """One phase: its place (0-based), its recipe section and its length in optimizer steps.

    The last epoch is partial where ``max_steps`` ends it.
    """

    number: int
    section: PhaseSection
    steps: int
    steps_per_epoch: int
    schedule: Schedule

    @property
    def epochs(self) -> int:
        return math.ceil(self.steps / self.steps_per_epoch)


def plan_phases(train: TrainSection, batches_per_epoch: int) -> list[PhasePlan]:
    """Count out ``train``'s phases; those that ``max_steps`` leaves no step are left out."""
    per_epoch = math.ceil(batches_per_epoch / train.accumulate)
    left = train.max_steps if train.max_steps is not None else math.inf
    plans = []
    for number, section in enumerate(train.phases):
        steps = int(min(section.epochs * per_epoch, left))
        if steps == 0:
            break
        left -= steps
        assert section.schedule is not None  # filled in by the recipe
        assert section.warmup_epochs is not None
        schedule = Schedule(
            section.schedule,
            steps,
            warmup_steps=min(round(section.warmup_epochs * per_epoch), steps - 1),
            drop_every=train.step_epochs * per_epoch,
            gamma=train.step_gamma,
        )
        plans.append(PhasePlan(number, section, steps, per_epoch, schedule))
    return plans
