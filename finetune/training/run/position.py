"""The position of a run: everything but tensors that a resume needs, JSON-ready."""

import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

from finetune.errors import CheckpointError, printable, require_known
from finetune.training.steps.loop import Totals

FORMAT = 2
# The largest count: the largest integer that every JSON reader represents exactly.
LARGEST = 2**53
# The values of `train.select`.
Selection = Literal["top1", "balanced_accuracy", "loss", "last"]


@dataclass(frozen=True)
class Best:
    """The best epoch (1-based) by val, with its values there: fractions, and the mean loss.

    ``val_balanced_accuracy`` is None in a run of an earlier version.
    """

    epoch: int
    val_top1: float
    val_loss: float
    val_balanced_accuracy: float | None = None

    def beaten_by(self, other: "Best", select: Selection = "top1") -> bool:
        """Whether the epoch ``other`` is better, by ``train.select``.

        ``top1``, ``balanced_accuracy``: if that is higher; the lower loss decides ties, which are common on
        a small val. ``loss``: if its loss is lower. ``last``: always.
        """
        require_known("select", select, get_args(Selection))
        if select == "last":
            return True
        if select == "loss":
            return other.val_loss < self.val_loss
        name = f"val_{select}"
        # A run of an earlier version did not select by a value that it did not store.
        own, others = (-1.0 if (value := getattr(each, name)) is None else value for each in (self, other))
        return (others, -other.val_loss) > (own, -self.val_loss)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Position:
    """A point of a run between two optimizer steps.

    A step counts as soon as it is made. An epoch counts once it is evaluated on val and written to the
    metrics. So an epoch is open while ``epoch_step`` is above 0, even after its last step: a run that resumes
    there makes no step and evaluates. A phase that solves its head is one epoch of one step.
    :mod:`finetune.training.run.check_position` checks a saved position against the recipe.

    Attributes:
        epoch, global_step: finished epochs and steps of the run.
        phase_epoch, phase_step: finished epochs and steps of the phase.
        epoch_step: steps of the open epoch.
        metrics_lines: length of ``metrics.jsonl``.
        frozen: digests of the frozen tensors at the start of the phase.
        ema_updates: updates of the moving average.
        scaler: state of the gradient scaler.
        refit_epochs: by phase, the epochs that the refit takes; empty before the refit.
    """

    phase: int = 0
    epoch: int = 0
    phase_epoch: int = 0
    phase_step: int = 0
    epoch_step: int = 0
    global_step: int = 0
    totals: Totals = field(default_factory=Totals)
    best: Best | None = None
    epochs_without_better: int = 0
    metrics_lines: int = 0
    frozen: Any = None
    ema_updates: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    refit_epochs: list[int] = field(default_factory=list)
    finished: bool = False

    def begin_phase(self, number: int) -> None:
        self.phase = number
        self.phase_epoch = self.phase_step = self.epochs_without_better = 0

    def end_epoch(self, *, is_best: bool) -> None:
        self.epoch += 1
        self.phase_epoch += 1
        self.epochs_without_better = 0 if is_best else self.epochs_without_better + 1

    def begin_epoch(self) -> None:
        self.epoch_step = 0
        self.totals = Totals()

    def made_step(self) -> None:
        self.epoch_step += 1
        self.phase_step += 1
        self.global_step += 1

    def _check(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if type(value) is int}
        for name, default in vars(Position()).items():
            if type(default) is int and not 0 <= numbers.get(name, -1) <= LARGEST:
                raise ValueError(f"{name} is no count")
        for each in (self.totals, *([self.best] if self.best else [])):
            for name, value in vars(each).items():
                if name == "val_balanced_accuracy" and value is None:
                    continue
                # NaN fails every comparison.
                if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max:
                    raise ValueError(f"{name} is no number")
        whole = [vars(self.totals)[name] for name in ("images", "correct", "skipped")]
        if any(type(value) is not int for value in (*whole, *([self.best.epoch] if self.best else []))):
            raise ValueError("a count of images or epochs is no whole number")
        shares = [self.best.val_top1, self.best.val_balanced_accuracy or 0.0] if self.best else []
        if self.totals.correct > self.totals.images or max(shares, default=0.0) > 1:
            raise ValueError("a fraction is above 1")
        if type(self.finished) is not bool or not isinstance(self.scaler, dict):
            raise ValueError("an entry of the wrong type")
        refit = self.refit_epochs
        if not isinstance(refit, list) or any(type(each) is not int or each < 1 for each in refit):
            raise ValueError("refit_epochs are no counts of epochs")

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self), "best": self.best.to_dict() if self.best else None}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Self:
        """Read the output of :meth:`to_dict`.

        Raises:
            CheckpointError: it is something else, or in a format that this version does not know.
        """
        try:
            entries = dict(value)
            if entries.pop("format") != FORMAT:
                raise ValueError("of another format")
            entries["totals"] = Totals(**entries["totals"])
            entries["best"] = Best(**entries["best"]) if entries["best"] else None
            position = cls(**entries)
            position._check()
            return position
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{printable(where)}: is not a training state of this version ({error})."
            ) from None
