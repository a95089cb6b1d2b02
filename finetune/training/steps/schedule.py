"""Learning-rate schedules: pure functions of the step, so a resume needs no schedule state."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from finetune.errors import require_known

# As in torch's OneCycleLR: up from 1/25 during 30 % of the steps, then down to 1/25/10^4.
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


class Rates(Protocol):
    """The learning rate of each step."""

    def factor(self, step: int) -> float:
        """The factor on the base rate at step ``step`` (0-based) of the phase."""
        ...


@dataclass(frozen=True)
class Schedule:
    """The schedule of one phase.

    Attributes:
        kind: a name in :data:`SCHEDULES`.
        steps: length of the phase in optimizer steps.
        warmup_steps: steps of linear rise at the start.
        drop_every, gamma: of ``step``: the steps between drops, and the factor of each.
        begun: the step at which an extended run restarts a schedule that depends on its length, without
            warm-up.

    Raises:
        FinetuneError: ``kind`` is not in :data:`SCHEDULES`.
    """

    kind: str
    steps: int
    warmup_steps: int = 0
    drop_every: int = 1
    gamma: float = 0.1
    begun: int = 0

    def __post_init__(self) -> None:
        require_known("schedule", self.kind, list(SCHEDULES))

    @property
    def depends_on_length(self) -> bool:
        """Whether the rate at a step depends on the number of steps."""
        return SCHEDULES[self.kind].depends_on_length

    def factor(self, step: int) -> float:
        """The factor on the base rate at step ``step`` (0-based) of the phase, in [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        start = self.begun if self.begun and self.depends_on_length else self.warmup_steps
        return SCHEDULES[self.kind].factor(self, step - start, self.steps - start)


@dataclass(frozen=True)
class Kind:
    """One kind of schedule.

    Attributes:
        factor: from the schedule, the steps done since its start, and the steps in all.
        depends_on_length: whether the number of steps in all matters.
    """

    factor: Callable[[Schedule, int, int], float]
    depends_on_length: bool


def _cosine(schedule: Schedule, done: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * done / steps))


def _one_cycle(schedule: Schedule, done: int, steps: int) -> float:
    rise_end, last = ONE_CYCLE_RISE * steps - 1, steps - 1
    if done <= rise_end:
        return _anneal(ONE_CYCLE_START, 1.0, done / rise_end)
    return _anneal(1.0, ONE_CYCLE_END, (done - rise_end) / max(last - rise_end, 1e-9))


def _step(schedule: Schedule, done: int, steps: int) -> float:
    return float(schedule.gamma ** (done // schedule.drop_every))


def _constant(schedule: Schedule, done: int, steps: int) -> float:
    return 1.0


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


# By the name in the recipe. cosine: Loshchilov & Hutter 2017; one_cycle: Smith & Topin 2018.
SCHEDULES = {
    "cosine": Kind(_cosine, depends_on_length=True),
    "one_cycle": Kind(_one_cycle, depends_on_length=True),
    "step": Kind(_step, depends_on_length=False),
    "constant": Kind(_constant, depends_on_length=False),
}
