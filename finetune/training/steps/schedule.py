"""The learning rate as a pure function of the step, so that a resumed run needs no schedule state."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from finetune.errors import require_known

Kind = Literal["cosine", "one_cycle", "step", "constant"]

# As in torch's OneCycleLR: a rise over 30 % of the steps from 1/25, then down to 1/25/10^4.
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


class Rates(Protocol):
    """What sets the rate of each step."""

    def factor(self, step: int) -> float:
        """What the base rate is multiplied by at step ``step`` (0-based) of the phase."""
        ...


# What the rate is at a step hangs on how many there are.
DEPENDS_ON_LENGTH = ("cosine", "one_cycle")


@dataclass(frozen=True)
class Schedule:
    """One phase's schedule.

    ``steps`` and ``warmup_steps`` count optimizer steps; ``drop_every`` (steps) and ``gamma`` belong to
    ``kind="step"``. ``one_cycle`` is Smith & Topin 2018 with cosine annealing, ``cosine`` is Loshchilov &
    Hutter 2017. Where a run was extended at step ``begun``, these two begin again there, without a warm-up,
    as in the latter's restarts.

    Raises:
        FinetuneError: an unknown ``kind``.
    """

    kind: Kind
    steps: int
    warmup_steps: int = 0
    drop_every: int = 1
    gamma: float = 0.1
    begun: int = 0

    def __post_init__(self) -> None:
        require_known("schedule", self.kind, get_args(Kind))

    def factor(self, step: int) -> float:
        """What the base rate is multiplied by at step ``step`` (0-based) of the phase; in [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        start = self.begun if self.begun and self.kind in DEPENDS_ON_LENGTH else self.warmup_steps
        done, steps = step - start, self.steps - start
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done / steps))
        if self.kind == "step":
            return self.gamma ** (done // self.drop_every)
        if self.kind == "one_cycle":
            rise_end, last = ONE_CYCLE_RISE * steps - 1, steps - 1
            if done <= rise_end:
                return _anneal(ONE_CYCLE_START, 1.0, done / rise_end)
            return _anneal(1.0, ONE_CYCLE_END, (done - rise_end) / max(last - rise_end, 1e-9))
        return 1.0


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
