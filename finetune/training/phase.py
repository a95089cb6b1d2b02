"""One phase: freeze, group, train epoch by epoch, judge on val, save, and check that the freeze held."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from finetune.checkpoint.storage import CARD, MODEL, OPTIMIZER, RAW, SCORE, STATE, save_checkpoint
from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.errors import StoppedError
from finetune.evaluation.evaluate import collect_logits
from finetune.evaluation.metrics import Metrics, classification_metrics
from finetune.features.cut import CutError, inference_form
from finetune.model.freeze import Freeze
from finetune.training.caching.feature_plan import FeaturePlan
from finetune.training.caching.frozen import Frozen
from finetune.training.compute.allocator import keep_less
from finetune.training.compute.compiled import Compiled
from finetune.training.progress import Progress
from finetune.training.recalibration import recalibrate_batchnorm
from finetune.training.run.directory import RunDir
from finetune.training.run.files import METRICS, TIMING
from finetune.training.run.position import Best, Position
from finetune.training.run.signals import Signals
from finetune.training.setup.plan import SOLVER, PhasePlan
from finetune.training.setup.prepare import Setup
from finetune.training.setup.stepper import freeze_layers, make_optimizer, make_stepper
from finetune.training.solved import solve_head
from finetune.training.steps.loop import Stepper
from finetune.training.steps.optimizer import load_named_state, named_state

log = logging.getLogger("finetune")

# Where steps read kept features, an epoch can take less time than saving it: `last` is then saved so often.
SECONDS_BETWEEN_SAVES = 10.0


def judge(setup: Setup, split_name: str, signals: Signals, frozen: Frozen | None = None) -> Metrics:
    """The metrics of the evaluated network (the moving average, where there is one) on a split, in fp32.

    It runs in inference form, as ``finetune eval`` runs it, and the two give the same numbers.

    Args:
        frozen: on val, in a phase with frozen layers: what those compute, in place of images.
    """
    data, card = setup.recipe.data, setup.card
    if frozen is not None and frozen.judges_val:
        module, batches = frozen.evaluated, frozen.val(signals.check)
    else:
        module = inference_form(setup.evaluated)
        batches = eval_batches(
            setup.source.splits[split_name],
            card.preprocessing,
            ReadOptions(
                setup.recipe.train.images_a_batch, setup.workers, data.on_bad_image, setup.compute.device
            ),
            cache=setup.val_decoded if split_name == "val" else None,
            check=signals.check,
        )
    collected = collect_logits(module, signals.watch(batches), setup.compute.device, setup.compute.exact())
    for error in collected.bad:
        if error.name not in setup.left_out:
            setup.left_out.add(error.name)
            log.warning("left out of %s: %s", split_name, error)
    return classification_metrics(collected.logits, collected.targets, card.classes)


def train_phase(
    plan: PhasePlan,
    setup: Setup,
    position: Position,
    optimizer_state: dict[str, Tensor],
    run: RunDir,
    signals: Signals,
    progress: Progress,
    features: FeaturePlan | None = None,
) -> dict[str, Tensor]:
    """Train one phase from where ``position`` stands in it; returns the optimizer's state for the next.

    Args:
        features: what is to become of what frozen layers compute; None where none are frozen.

    Raises:
        StoppedError: a signal came; the state was saved.
        FreezeBrokenError: something frozen changed.
        FinetuneError: as the loop, the data and the checkpoints raise it.
    """
    freeze = freeze_layers(plan, setup)
    if position.phase_step == 0 or position.frozen is None:
        position.frozen = freeze.frozen_digests()
    if plan.optimizer == SOLVER:
        _solve_phase(plan, setup, position, run, signals, progress, features, freeze)
        freeze.verify(position.frozen)
        return {}
    optimizer = make_optimizer(plan, setup)
    load_named_state(optimizer, optimizer_state)
    scaler = setup.compute.scaler()
    if position.scaler:
        scaler.load_state_dict(position.scaler)
    stepper = make_stepper(setup, optimizer, plan.schedule, scaler)

    saved, saved_step = time.monotonic(), position.global_step

    def save() -> None:
        nonlocal saved, saved_step
        position.scaler = scaler.state_dict()
        position.ema_updates = int(setup.ema.n_averaged) if setup.ema is not None else 0
        save_last(setup, run, position, named_state(optimizer))
        saved, saved_step = time.monotonic(), position.global_step

    def save_now_and_then() -> None:
        if time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
            save()

    progress.phase(f"{_title(plan, freeze.k, setup, optimizer)}, {_epochs(plan, position)}")
    try:
        frozen = _open_frozen(plan, setup, position, features, freeze, signals, progress)
        if frozen is not None:
            stepper.suffix = frozen.suffix
        elif setup.compute.precision == "fp32":
            keep_less()
        if setup.compute.compile:
            stepper.compiled = Compiled(stepper.forward, setup.recipe.train.images_a_batch)
        asked = setup.recipe.train.checkpoint_every_steps is not None
        saving = save_now_and_then if frozen is not None and frozen.keeps_train and not asked else save
        while _under_way(plan, position, setup.recipe.train.early_stopping):
            began = time.perf_counter()
            freeze.train_mode()
            _train_epoch(plan, setup, stepper, position, signals, progress, save, frozen)
            trained = time.perf_counter() - began
            recalibrate_batchnorm(setup, freeze, position, signals)
            val = judge(setup, "val", signals, frozen)
            factor = plan.schedule.factor(position.phase_step - 1)  # of the last step made
            rates = {group["name"]: group["base_lr"] * factor for group in optimizer.param_groups}
            _end_epoch(plan, setup, position, val, rates, (began, trained), run, progress, saving)
            signals.check()
        if saved_step != position.global_step:
            save()
    except StoppedError:
        save()
        raise
    freeze.verify(position.frozen)
    return named_state(optimizer)


def _solve_phase(
    plan: PhasePlan,
    setup: Setup,
    position: Position,
    run: RunDir,
    signals: Signals,
    progress: Progress,
    features: FeaturePlan | None,
    freeze: Freeze,
) -> None:
    """Put the linear head that L-BFGS finds in place; one epoch of one step.

    As in any phase, a stop within val leaves the step made and the epoch open. The head is then in `last`,
    and what a resume has left to do is val.
    """

    def save() -> None:
        save_last(setup, run, position, {})

    if not _under_way(plan, position, None):
        return
    progress.phase(
        f"{freeze.k} of {len(setup.network.table.body)} layers frozen, the head is solved (L-BFGS): "
        f"{_epochs(plan, position)}"
    )
    began = time.perf_counter()
    try:
        frozen = _open_frozen(plan, setup, position, features, freeze, signals, progress)
        if position.phase_step < plan.steps:
            solve_head(plan, setup, frozen, position.totals)
            position.made_step()
        trained = time.perf_counter() - began
        val = judge(setup, "val", signals, frozen)
        _end_epoch(plan, setup, position, val, {}, (began, trained), run, progress, save)
        signals.check()
    except StoppedError:
        save()
        raise


def _end_epoch(
    plan: PhasePlan,
    setup: Setup,
    position: Position,
    val: Metrics,
    rates: dict[str, float],
    clock: tuple[float, float],
    run: RunDir,
    progress: Progress,
    save: Callable[[], None],
) -> None:
    """Write an epoch down, save it, and tell of it.

    Args:
        clock: when it began, and the seconds that its steps took, without val.
    """
    began, trained = clock
    entry, is_best = _close_epoch(plan, setup, position, val, rates)
    seconds, images = round(time.perf_counter() - began, 3), position.totals.images
    timing = {"epoch": position.epoch, "seconds": seconds, "train_seconds": round(trained, 4)}
    run.append(METRICS, entry)
    run.append(TIMING, {**timing, "images": images})
    position.begin_epoch()
    # Before `best`, which a resume can then make good from it; a `best` that is newer than `last` is right
    # too, since its epoch comes again.
    save()
    if is_best:
        save_best(setup, run, position)
    progress.epoch(entry, seconds, is_best)


def _open_frozen(
    plan: PhasePlan,
    setup: Setup,
    position: Position,
    features: FeaturePlan | None,
    freeze: Freeze,
    signals: Signals,
    progress: Progress,
) -> Frozen | None:
    """The frozen layers, cut off, with what is to be kept of them; None where the network runs whole."""
    if features is None or features.whole is not None:
        return None
    freeze.train_mode()  # the suffix is traced as it trains
    first = position.epoch - position.phase_epoch
    try:
        frozen = Frozen(setup, features, range(first, first + plan.epochs), freeze)
    except CutError as error:
        log.info("the network runs whole: %s", error)
        return None
    frozen.fill(signals, progress.features)
    return frozen


def _under_way(plan: PhasePlan, position: Position, patience: int | None) -> bool:
    if position.epoch_step:
        return True
    given_up = patience is not None and position.epochs_without_better >= patience
    return position.phase_step < plan.steps and not given_up


def _title(plan: PhasePlan, k: int, setup: Setup, optimizer: torch.optim.Optimizer) -> str:
    body = len(setup.network.table.body)
    trained = sum(p.numel() for p in setup.network.module.parameters() if p.requires_grad)
    total = sum(p.numel() for p in setup.network.module.parameters())
    rate = f"lr {plan.lr:g}" if k < body else f"lr {plan.lr * plan.head_lr_mult:g}"
    head = f", head x{plan.head_lr_mult:g}" if k < body else " (head)"
    if plan.layer_decay is not None and k < body:
        head = f", x{plan.layer_decay:g} a layer down{head}"
    return (
        f"{k} of {body} layers frozen, {trained:,} of {total:,} parameters train, "
        f"{type(optimizer).__name__}, {rate}{head}"
    )


def _epochs(plan: PhasePlan, position: Position) -> str:
    """How many the phase has and, where it is not the first, which: "15 epochs (2 to 16)".

    Epochs are counted through all phases, and a head that is solved is one, as in all that is told later.
    """
    before = position.epoch - position.phase_epoch
    first, last = before + 1, before + plan.epochs
    count = "1 epoch" if plan.epochs == 1 else f"{plan.epochs} epochs"
    if first == last:
        return f"epoch {first}"
    return f"{count} ({first} to {last})" if before else count


def _train_epoch(
    plan: PhasePlan,
    setup: Setup,
    stepper: Stepper,
    position: Position,
    signals: Signals,
    progress: Progress,
    save: Any,
    frozen: Frozen | None,
) -> None:
    """The steps of one epoch, or those left of it."""
    every = setup.recipe.train.checkpoint_every_steps
    accumulate = setup.recipe.train.accumulate
    steps = min(plan.steps_per_epoch, plan.steps - position.phase_step + position.epoch_step)
    if position.epoch_step >= steps:
        return
    source = setup.loader if frozen is None else frozen
    batches = source.epoch(position.epoch, start=position.epoch_step * accumulate, check=signals.check)
    made = stepper.epoch(batches, position.totals, position.phase_step, position.global_step)
    for _ in made:
        position.made_step()
        progress.step(position.epoch + 1, position.epoch_step, steps)
        if position.epoch_step >= steps:
            break
        if every is not None and position.global_step % every == 0:
            save()
        signals.check()


def _close_epoch(
    plan: PhasePlan,
    setup: Setup,
    position: Position,
    val: Metrics,
    rates: dict[str, float],
) -> tuple[dict[str, Any], bool]:
    """The epoch's line in the metrics, and whether val likes its weights most so far."""
    select = setup.recipe.train.select
    is_best = position.best is None or position.best.beaten_by(val.top1, val.loss, select)
    position.epoch += 1
    position.phase_epoch += 1
    position.epochs_without_better = 0 if is_best else position.epochs_without_better + 1
    entry = {
        "epoch": position.epoch,
        "phase": plan.number,
        "step": position.global_step,
        "lr": rates,
        **position.totals.metrics(),
        "val_top1": val.top1,
        "val_loss": val.loss,
        "val_n": val.n,
        "train_skipped": position.totals.skipped,
        "val_skipped": len(setup.source.splits["val"]) - val.n,
    }
    position.metrics_lines += 1
    if is_best:
        position.best = Best(position.epoch, val.top1, val.loss)
    return entry, is_best


def save_best(setup: Setup, run: RunDir, position: Position) -> None:
    """Keep the weights of the epoch that is just over, which is the best so far, as checkpoint ``best``."""
    assert position.best is not None
    # The one before is not kept: this epoch's weights are in `last` too.
    save_checkpoint(
        run.checkpoints,
        "best",
        {MODEL: setup.evaluated.state_dict()},
        {CARD: setup.card.to_dict(), SCORE: asdict(position.best)},
        keep_previous=False,
    )


def save_last(setup: Setup, run: RunDir, position: Position, optimizer_state: dict[str, Tensor]) -> None:
    """Save all that a resume needs as checkpoint ``last``; the one before it stays."""
    tensors: dict[str, Any] = {MODEL: setup.evaluated.state_dict(), OPTIMIZER: optimizer_state}
    if setup.ema is not None:
        tensors[RAW] = setup.network.module.state_dict()
    documents = {CARD: setup.card.to_dict(), STATE: position.to_dict()}
    save_checkpoint(run.checkpoints, "last", tensors, documents, keep_previous=True)
