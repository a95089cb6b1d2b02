"""A training session: the state of a training, and its checkpoints and metrics."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.storage import (
    CARD,
    MODEL,
    NOVELTY,
    OPTIMIZER,
    RAW,
    SCORE,
    STATE,
    VAL,
    load_weights,
    open_checkpoint,
    read_document,
    read_tensors,
    restore_previous,
    save_checkpoint,
)
from finetune.data.dataset import Split
from finetune.decision.decision import Decision
from finetune.errors import RunDirError, printable
from finetune.evaluation.metrics import Metrics
from finetune.training import curves
from finetune.training.caching.decoded import cache_decoded
from finetune.training.caching.prefix import FrozenPrefix
from finetune.training.decide import decide
from finetune.training.novelty import Learned, learn_novelty
from finetune.training.novelty_file import reference_tensors
from finetune.training.progress import Progress
from finetune.training.run.directory import RunDir
from finetune.training.run.files import METRICS, TIMING
from finetune.training.run.position import Best, Position
from finetune.training.run.saved import best_is_saved
from finetune.training.run.signals import Signals
from finetune.training.run_plan import RunPlan
from finetune.training.setup.prepare import Setup
from finetune.training.steps.optimizer import named_state
from finetune.training.val_logits import ValLogits
from finetune.training.validation import collect, evaluate, report_left_out

# Steps on cached features can be faster than saving. In such phases `last` is saved this often.
SECONDS_BETWEEN_SAVES = 10.0


@dataclass
class EpochClock:
    """The time that an epoch takes: ``began`` (seconds, ``perf_counter``), and training without val.

    ``features_seconds`` is the time that its phase took before it, for the features of frozen layers.
    """

    began: float = field(default_factory=time.perf_counter)
    train_seconds: float | None = None
    features_seconds: float | None = None

    def stop_training(self) -> None:
        self.train_seconds = time.perf_counter() - self.began


@dataclass
class Session:
    """A training and its run directory.

    The session is the only place that moves the position, writes metrics and saves checkpoints. Phases
    (:mod:`finetune.training.phase`) train the network and report to the session.

    Attributes:
        optimizer_state: by parameter name, as the last phase left it; the next optimizer starts from it.
        optimizer: of the phase under way; None while a head is solved.
        scaler: the gradient scaler that belongs to ``optimizer``.
    """

    setup: Setup
    run: RunDir
    plan: RunPlan = field(default_factory=RunPlan)
    position: Position = field(default_factory=Position)
    progress: Progress = field(default_factory=Progress)
    optimizer_state: dict[str, Tensor] = field(default_factory=dict)
    signals: Signals = field(default_factory=Signals)
    optimizer: torch.optim.Optimizer | None = None
    scaler: torch.amp.GradScaler | None = None
    _saved_seconds: float = field(default_factory=time.monotonic)
    _saved_step: int = -1

    def __post_init__(self) -> None:
        self._saved_step = self.position.global_step

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While active, the session handles signals, reads images and fills the caches."""
        with self.signals, self.setup.reading(), cache_decoded(self.setup, self.plan.decoded):
            yield

    def roll_back(self, checkpoint: Path, *, changed: bool) -> None:
        """Bring the run directory back to the position: the start of a resume.

        Args:
            changed: recipe, data or libraries differ from those that the run began with.

        Raises:
            CheckpointError: the best checkpoint or the metrics do not belong to the position.
        """
        restore_previous(checkpoint)
        if not best_is_saved(self.run, self.position, changed=changed):
            self.save_best()
        self.run.cut_back(METRICS, self.position.metrics_lines)
        self.run.cut_back(TIMING, self.position.epoch)

    def evaluate(self, split_name: str, prefix: FrozenPrefix | None = None) -> Metrics:
        """Compute the metrics on a split, as :func:`finetune.training.validation.evaluate`."""
        return evaluate(self.setup, split_name, self.signals, prefix)

    def end_epoch(
        self, facts: Mapping[str, Any], val: Metrics | None, clock: EpochClock, *, save_rarely: bool = False
    ) -> None:
        """Count the epoch, write it to the metrics, save it and report it.

        Args:
            facts: the epoch's line in ``metrics.jsonl``, without its number, phase and step.
            val: its metrics on val; None in a refit, which has no best epoch.
            save_rarely: save ``last`` only every ``SECONDS_BETWEEN_SAVES`` seconds.
        """
        position, select = self.position, self.setup.recipe.train.select
        is_best = False
        if val is not None:
            reached = Best(position.epoch + 1, val.top1, val.loss, val["balanced_accuracy"])
            is_best = position.best is None or position.best.beaten_by(reached, select)
            position.best = reached if is_best else position.best
        position.end_epoch(is_best=is_best)
        entry = {"epoch": position.epoch, "phase": position.phase, "step": position.global_step, **facts}
        seconds = round(time.perf_counter() - clock.began, 3)
        timing: dict[str, Any] = {"epoch": position.epoch, "seconds": seconds}
        if clock.train_seconds is not None:
            timing["train_seconds"] = round(clock.train_seconds, 4)
        if clock.features_seconds is not None:
            timing["features_seconds"] = round(clock.features_seconds, 4)
        timing["images"] = position.totals.images
        self.run.append(METRICS, entry)
        position.metrics_lines += 1
        self.run.append(TIMING, timing)
        position.begin_epoch()
        # `last` first: a resume can restore `best` from it. A `best` that is newer than `last` is right as
        # well, since its epoch is repeated.
        if not save_rarely or time.monotonic() - self._saved_seconds >= SECONDS_BETWEEN_SAVES:
            self.save_last()
        if is_best:
            self.save_best()
        self.progress.epoch(entry, seconds, is_best)

    def end_phase(self) -> None:
        """Save ``last`` if it is out of date, and leave the optimizer's state to the next phase."""
        if self._saved_step != self.position.global_step:
            self.save_last()
        self._collect_optimizer()
        self.optimizer = self.scaler = None

    def save_last(self) -> None:
        """Save everything that a resume needs as checkpoint ``last``; the one before stays as a fallback."""
        setup, position = self.setup, self.position
        self._collect_optimizer()
        position.ema_updates = int(setup.ema.n_averaged) if setup.ema is not None else 0
        tensors: dict[str, Any] = {MODEL: setup.evaluated.state_dict(), OPTIMIZER: self.optimizer_state}
        if setup.ema is not None:
            tensors[RAW] = setup.network.module.state_dict()
        documents = {CARD: setup.card.to_dict(), STATE: position.to_dict()}
        save_checkpoint(self.run.checkpoints, "last", tensors, documents, keep_previous=True)
        self._saved_seconds, self._saved_step = time.monotonic(), position.global_step

    def save_best(self) -> None:
        """Save the weights of the epoch that just ended as checkpoint ``best``."""
        self._save_best(self.setup.card, {})

    def choose(self) -> None:
        """Decide on val what is made of the best checkpoint's logits, and save it again with that."""
        splits = self.setup.source.splits
        with self._best_weights():
            learned = learn_novelty(self.setup, splits["train"], splits["val"], self.signals)
            report_left_out(self.setup, "val", learned.val)
            kept = ValLogits.of(learned.val)
            decision = decide(self.setup.recipe.train, learned.val)
            self._save_decided(replace(decision, novelty=learned.novelty), kept.tensors(), learned)

    def keep_refit(self, train: Split, val: Split) -> None:
        """Put the weights of the refit in the place of the best checkpoint's.

        What was decided on val stays: it comes from a network that had not seen val. Only which images are
        unlike the training images is learned anew, since the features of the refit are others.

        Args:
            train, val: the splits before the refit.
        """
        folder = self._open_best()
        decision = ModelCard.from_dict(read_document(folder / CARD), str(folder / CARD)).decision
        learned = learn_novelty(self.setup, train, val, self.signals)
        self._save_decided(replace(decision, novelty=learned.novelty), read_tensors(folder / VAL), learned)

    def finish(self) -> Metrics | None:
        """Evaluate the best checkpoint on test, write that to the metrics, draw the curves, and mark the run
        as finished."""
        test = self.test()
        if test is not None:
            entry = {
                "split": "test",
                "checkpoint": "best",
                "epoch": self.best.epoch,
                "test_top1": test.top1,
                "test_top1_low": test.top1_low,
                "test_top1_high": test.top1_high,
                "test_balanced_accuracy": test["balanced_accuracy"],
                "test_loss": test.loss,
                "test_n": test.n,
            }
            if test.groups is not None:
                entry["test_groups"] = test.groups
            self.run.append(METRICS, entry)
            self.position.metrics_lines += 1
        recipe = self.setup.recipe
        freezes = [phase.freeze for phase in recipe.train.phases]
        # Before the run counts as finished: a resume of a finished run draws nothing.
        curves.write_curves(self.run.path, recipe.model.backbone, freezes, self.best.epoch)
        self.position.finished = True
        self.save_last()
        return test

    def test(self) -> Metrics | None:
        """Evaluate the best checkpoint on test; None if the data has no test split.

        Raises:
            RunDirError: there is no best checkpoint.
        """
        if "test" not in self.setup.source.splits:
            return None
        with self._best_weights() as card:
            found = collect(self.setup, "test", self.signals)
        return replace(found, calibration=card.decision.calibration).metrics(card.classes)

    @contextlib.contextmanager
    def _best_weights(self) -> Iterator[ModelCard]:
        """Load the best checkpoint into the evaluated network for as long as the context lasts.

        Yields:
            The card of the checkpoint.
        """
        folder = self._open_best()
        # `last` is saved from this module too, so its weights are restored afterwards.
        module = self.setup.evaluated
        before = {name: value.clone() for name, value in module.state_dict().items()}
        load_weights(module, read_tensors(folder / MODEL), folder / MODEL)
        try:
            yield ModelCard.from_dict(read_document(folder / CARD), str(folder / CARD))
        finally:
            module.load_state_dict(before)

    def _open_best(self) -> Path:
        folder = open_checkpoint(self.run.checkpoints, "best")
        if folder is None:
            raise RunDirError(
                f"{printable(self.run.path)}: the best checkpoint is gone. Start over with --overwrite."
            )
        return folder

    def _save_best(self, card: ModelCard, more: Mapping[str, Mapping[str, Tensor]]) -> None:
        # No fallback is needed: the weights of this epoch are in `last` as well.
        tensors = {MODEL: self.setup.evaluated.state_dict(), **more}
        documents = {CARD: card.to_dict(), SCORE: self.best.to_dict()}
        save_checkpoint(self.run.checkpoints, "best", tensors, documents, keep_previous=False)

    def _save_decided(self, decision: Decision, val: Mapping[str, Tensor], learned: Learned) -> None:
        features = reference_tensors(learned.reference)
        more = {VAL: val} | ({NOVELTY: features} if features else {})
        self._save_best(replace(self.setup.card, decision=decision), more)

    @property
    def best(self) -> Best:
        """The best epoch so far; the first epoch to end is one."""
        assert self.position.best is not None
        return self.position.best

    def _collect_optimizer(self) -> None:
        if self.optimizer is not None:
            self.optimizer_state = named_state(self.optimizer)
        if self.scaler is not None:
            self.position.scaler = self.scaler.state_dict()
