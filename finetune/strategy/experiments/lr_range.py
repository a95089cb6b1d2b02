"""The learning-rate range test: a short run in which the rate rises until the loss explodes.

Smith 2017, "Cyclical learning rates for training neural networks". The rate rises exponentially, as in
fastai's `lr_find`. The suggestion comes from the longest fall of the loss.
"""

import bisect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from finetune.disk.figure import COLOURS, legend_below, new_chart, write_figure
from finetune.errors import FinetuneError, NonFiniteLossError, UserError
from finetune.features.progress import OnProgress, no_progress
from finetune.model.freeze import resolve_freeze
from finetune.model.layers.modes import preserve_modes
from finetune.recipe.schema import Recipe
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import choose_compute, pick_device
from finetune.training.setup.plan import SOLVER, plan_phases
from finetune.training.setup.prepare import Setup, load_data, prepare
from finetune.training.setup.stepper import freeze_layers, make_optimizer, make_stepper
from finetune.training.steps.loop import Totals

# The first and last rate of the body.
RANGE = {"adamw": (1e-6, 1.0), "sgd": (1e-5, 10.0)}
# The weight of the past in the smoothed loss.
SMOOTHING = 0.9
# The test ends when the smoothed loss exceeds its minimum by this factor.
EXPLODED = 4.0
# The position of the suggestion in the longest fall: after its start, and before it levels out.
INTO_THE_FALL = 2 / 3


@dataclass(frozen=True)
class RangeTest:
    """The measurements of the test, one value per step.

    Attributes:
        lr: ``train.phases.0.lr``: the body's rate. The head's is ``head_lr_mult`` times that.
        loss: of the batch, before the update.
        smoothed: the exponential mean of ``loss``, corrected for its start.
        suggestion: the ``lr`` to train with: two thirds into the longest fall of the smoothed loss.
        fall: the steps of that fall, from its start to its end.
        group: ``body``, or ``head`` where the phase freezes the whole body.
        head_lr_mult: of the phase.
    """

    lr: tuple[float, ...]
    loss: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float
    fall: tuple[int, ...]
    group: str = "body"
    head_lr_mult: float = 1.0

    @property
    def factor(self) -> float:
        """The rate of ``group`` in relation to ``lr``."""
        return self.head_lr_mult if self.group == "head" else 1.0

    @property
    def fall_from(self) -> float:
        """The ``lr`` at which the fall begins."""
        return self.lr[self.fall[0]]

    @property
    def fall_to(self) -> float:
        """The ``lr`` at which the fall ends."""
        return self.lr[self.fall[-1]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. ``group_`` values are rates of the group; the others are ``train.phases.0.lr``."""
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return own | {
            "fall_from": self.fall_from,
            "fall_to": self.fall_to,
            "group_suggestion": self.suggestion * self.factor,
        }


@dataclass(frozen=True)
class Rise:
    """The schedule of the test: from ``low`` to ``high`` in ``steps`` steps, each by the same factor.

    ``base`` is the base rate of the optimizer.
    """

    low: float
    high: float
    steps: int
    base: float

    def lr(self, step: int) -> float:
        """Return the rate at ``step``, counted from 0."""
        return float(self.low * (self.high / self.low) ** (step / (self.steps - 1)))

    def factor(self, step: int) -> float:
        """Return the rate at ``step``, divided by the base rate."""
        return self.lr(step) / self.base


def range_test(
    recipe: Recipe,
    *,
    steps: int = 100,
    low: float | None = None,
    high: float | None = None,
    device: str | None = None,
    progress: OnProgress = no_progress,
) -> RangeTest:
    """Test the first phase of ``recipe``; nothing is written.

    Args:
        steps: the number of optimizer steps, at least 10. The test ends earlier if the loss explodes.
        low, high: ``train.phases.0.lr``, the body's rate, at the first and the last step; None: 1e-6 to 1
            (AdamW), 1e-5 to 10 (SGD).

    Raises:
        UserError: the data, weights, freeze or range are unusable.
        FinetuneError: the loss never fell.
    """
    optimizer = recipe.train.phases[0].optimizer or recipe.train.optimizer
    if optimizer == SOLVER:
        raise UserError(
            "train.phases[0] solves the head with lbfgs, which has no learning rate to test; "
            "--set train.phases.0.optimizer=adamw tests one"
        )
    first, last = (given or usual for given, usual in zip((low, high), RANGE[optimizer], strict=True))
    if not 0 < first < last:
        raise UserError(f"--low {first:g} must be less than --high {last:g}")
    compute = choose_compute(pick_device(device), recipe.train)
    with in_force(compute):
        setup = prepare(recipe, load_data(recipe.data, recipe.seed), compute)
        plan = plan_phases(setup.recipe.train, setup.loader.batches_per_epoch)[0]
        rise = Rise(first, last, max(steps, 10), plan.lr)
        with setup.reading():
            return measure(setup, rise, progress)


def measure(setup: Setup, rise: Rise, progress: OnProgress = no_progress) -> RangeTest:
    """Run the test on ``setup``. Afterwards the network is bit-identical to before."""
    module = setup.network.module
    saved = {name: value.clone() for name, value in module.state_dict().items()}
    trainable = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    plan = plan_phases(setup.recipe.train, setup.loader.batches_per_epoch)[0]
    with preserve_modes(module):
        try:
            freeze, optimizer = freeze_layers(plan, setup), make_optimizer(plan, setup)
            freeze.train_mode()
            stepper = make_stepper(setup, optimizer, rise, setup.compute.scaler())
            stepper.ema = None  # an average over rising rates means nothing
            losses: list[float] = []
            smooth: list[float] = []
            batches = chain.from_iterable(map(setup.loader.epoch, count()))
            for step in range(rise.steps):
                progress(step, rise.steps)
                totals = Totals()
                try:
                    stepper.step(list(islice(batches, stepper.accumulate)), totals, step, step)
                except NonFiniteLossError:
                    break
                if not totals.images:
                    continue
                losses.append(totals.loss / totals.images)
                smooth = smoothed(losses)
                if smooth[-1] > EXPLODED * min(smooth):
                    break
        finally:
            module.load_state_dict(saved)
            module.zero_grad(set_to_none=True)
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(trainable[name])
    rates = [rise.lr(step) for step in range(len(losses))]
    suggestion, fall = suggest(rates, smooth), longest_fall(smooth)
    frozen = resolve_freeze(plan.freeze, setup.network.table) == len(setup.network.table.body)
    return RangeTest(
        tuple(rates),
        tuple(losses),
        tuple(smooth),
        suggestion,
        tuple(fall),
        "head" if frozen else "body",
        plan.head_lr_mult,
    )


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate two thirds into the longest fall of smoothed losses.

    Raises:
        FinetuneError: the losses never fall.
    """
    fall = longest_fall(losses)
    if len(fall) < 3:
        raise FinetuneError(
            "the loss never fell, so there is no rate to suggest. Try a smaller --low, more --steps, or a "
            "larger train.batch_size."
        )
    return rates[fall[int(INTO_THE_FALL * (len(fall) - 1))]]


def longest_fall(values: Sequence[float]) -> list[int]:
    """Return the places of the longest strictly falling subsequence (patience sorting; Fredman 1975)."""
    heads: list[float] = []
    ends: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values):
        pile = bisect.bisect_left(heads, -value)
        before.append(ends[pile - 1] if pile else -1)
        if pile == len(heads):
            heads.append(-value)
            ends.append(place)
        else:
            heads[pile], ends[pile] = -value, place
    place, found = (ends[-1] if ends else -1), []
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the exponential mean after each loss, corrected for its start at zero (as in Adam)."""
    mean, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**step))
    return found


def draw(test: RangeTest, title: str, path: Path) -> None:
    """Draw loss against the rate of the group, with the fall that gave the suggestion.

    Raises:
        UserError, SaveError: as :func:`finetune.disk.figure.write_figure`.
    """
    figure, axes = new_chart(7.5, 4.8, title)
    rates = [test.factor * rate for rate in test.lr]
    chosen = test.factor * test.suggestion
    ends = [rates[step] for step in (test.fall[0], test.fall[-1])]
    place = test.fall[int(INTO_THE_FALL * (len(test.fall) - 1))]
    axes.axvspan(*ends, color=COLOURS[2], alpha=0.13, linewidth=0)
    axes.plot(rates, test.loss, color=COLOURS[0], alpha=0.35, linewidth=1, label="loss of the batch")
    axes.plot(rates, test.smoothed, color=COLOURS[0], linewidth=2, label="smoothed loss")
    axes.plot(
        [rates[step] for step in test.fall],
        [test.smoothed[step] for step in test.fall],
        color=COLOURS[2],
        linewidth=4,
        alpha=0.6,
        label=f"its longest fall: {ends[0]:.1e} to {ends[1]:.1e}",
    )
    axes.plot(
        [chosen],
        [test.smoothed[place]],
        "D",
        color=COLOURS[1],
        markersize=8,
        label=f"suggestion, two thirds into the fall: {chosen:.1e}{_as_key(test)}",
    )
    axes.axvline(chosen, color=COLOURS[1], linestyle="--", linewidth=1.2)
    axes.set_xscale("log")
    # Without a limit, the exploded loss would flatten the rest.
    axes.set_ylim(0, 1.2 * max(test.smoothed[0], *test.smoothed[: max(len(test.smoothed) // 2, 1)]))
    if test.group == "head":
        axes.set_xlabel("learning rate of the head (the body is frozen)")
    else:
        axes.set_xlabel(f"learning rate of the body (the head's is {test.head_lr_mult:g} times that)")
    axes.set_ylabel("loss (cross-entropy)")
    legend_below(figure)
    write_figure(figure, path)


def _as_key(test: RangeTest) -> str:
    return "" if test.factor == 1 else f" (lr: {test.suggestion:.1e}, head_lr_mult: {test.head_lr_mult:g})"
