"""Train one phase: freeze, train epoch by epoch, evaluate on val, save, and verify the frozen layers."""

import logging
import time
from typing import Any, Protocol

from finetune.errors import StoppedError
from finetune.features.cut import CutError
from finetune.model.freeze import Freeze
from finetune.training.caching.prefix import FrozenPrefix
from finetune.training.describe import phase_title
from finetune.training.gradient import GradientSteps
from finetune.training.session import EpochClock, Session
from finetune.training.setup.plan import SOLVER, PhasePlan
from finetune.training.setup.stepper import freeze_layers
from finetune.training.solved import SolvedHead
from finetune.training.validation import recalibrate_batchnorm

log = logging.getLogger("finetune")


class Method(Protocol):
    """The method of a phase: gradient steps, or solving the head."""

    # Whether `last` may be saved less often than every epoch.
    save_rarely: bool

    def attach(self, prefix: FrozenPrefix | None) -> None:
        """Train on the features of ``prefix``; None: on images."""

    def train_epoch(self) -> None:
        """Take the steps that are left of the epoch, counting each in the session's position."""

    def rates(self) -> dict[str, float]:
        """The learning rates of the last step, by parameter group."""


def train_phases(session: Session) -> None:
    """Train the phases of the session's plan that are left. Raises as :func:`train_phase`."""
    for plan in session.plan.phases:
        if plan.number >= session.position.phase:
            train_phase(session, plan)


def train_phase(session: Session, plan: PhasePlan) -> None:
    """Train one phase from the session's position to its end.

    Raises:
        StoppedError: a signal arrived; the state was saved.
        FreezeBrokenError: a frozen parameter or buffer changed.
        FinetuneError: from the data, a step or a checkpoint.
    """
    position = session.position
    if plan.number != position.phase:
        position.begin_phase(plan.number)
    freeze = freeze_layers(plan, session.setup)
    if position.phase_step == 0 or position.frozen is None:
        position.frozen = freeze.frozen_digests()
    if _is_open(session, plan):
        try:
            _train_epochs(session, plan, freeze)
        except StoppedError:
            session.save_last()
            raise
        session.end_phase()
    freeze.verify(position.frozen)


def _train_epochs(session: Session, plan: PhasePlan, freeze: Freeze) -> None:
    setup, position = session.setup, session.position
    method: Method = (
        SolvedHead(session, plan) if plan.optimizer == SOLVER else GradientSteps(session, plan, freeze)
    )
    session.progress.phase(phase_title(plan, setup, position))
    clock = EpochClock()
    prefix = _open_prefix(session, plan, freeze)
    method.attach(prefix)
    features_seconds = None if prefix is None else time.perf_counter() - clock.began
    while _is_open(session, plan):
        if plan.optimizer != SOLVER:  # the time to solve a head includes that of its features
            clock = EpochClock(features_seconds=features_seconds)
            features_seconds = None
        freeze.train_mode()
        method.train_epoch()
        clock.stop_training()
        recalibrate_batchnorm(setup, freeze, position.epoch, session.signals)
        facts: dict[str, Any] = {"lr": method.rates(), **position.totals.metrics()}
        val = None
        if plan.is_refit:
            facts |= {"refit": True, "train_skipped": position.totals.skipped}
        else:
            val = session.evaluate("val", prefix)
            facts |= {
                "val_top1": val.top1,
                "val_balanced_accuracy": val["balanced_accuracy"],
                "val_loss": val.loss,
                "val_n": val.n,
                "train_skipped": position.totals.skipped,
                "val_skipped": len(setup.source.splits["val"]) - val.n,
            }
        session.end_epoch(facts, val, clock, save_rarely=method.save_rarely)
        session.signals.check()


def _is_open(session: Session, plan: PhasePlan) -> bool:
    """Whether the phase has an epoch to train or to evaluate."""
    position = session.position
    patience = None if plan.is_refit else session.setup.recipe.train.early_stopping
    if position.epoch_step:
        return True
    stopped_early = patience is not None and position.epochs_without_better >= patience
    return position.phase_step < plan.steps and not stopped_early


def _open_prefix(session: Session, plan: PhasePlan, freeze: Freeze) -> FrozenPrefix | None:
    """Cut off the frozen layers and fill their cache; None if the network runs whole."""
    features = session.plan.features.get(plan.number)
    if features is None or features.whole is not None:
        return None
    freeze.train_mode()  # the suffix is traced in the modes that it trains in
    first = session.position.epoch - session.position.phase_epoch
    try:
        prefix = FrozenPrefix(session.setup, features, range(first, first + plan.epochs), freeze)
    except CutError as error:
        log.info("the network runs whole: %s", error)
        return None
    prefix.fill(session.signals, session.progress.features)
    return prefix
