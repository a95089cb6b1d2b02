"""Optimizer steps on batches. This module gets a model, batches and an optimizer, never the recipe."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from finetune.data.batches.batch import Batch
from finetune.data.keys import key
from finetune.errors import NoMemoryError, NonFiniteLossError, first_line, is_out_of_memory
from finetune.model.auxiliary import loss_and_logits
from finetune.training.compute.compiled import Compiled
from finetune.training.compute.memory import largest_that_fits
from finetune.training.compute.precision import Compute
from finetune.training.steps.diagnosis import first_non_finite
from finetune.training.steps.l2_sp import StartPenalty
from finetune.training.steps.schedule import Rates

NAMED_IMAGES = 8


@dataclass
class Totals:
    """Sums over the images of an epoch so far: plain numbers, which a checkpoint can store."""

    images: int = 0
    loss: float = 0.0
    correct: int = 0
    skipped: int = 0

    def metrics(self) -> dict[str, float | int]:
        """Mean loss and top-1 (a fraction) over the images seen, in training mode and augmented."""
        seen = max(self.images, 1)
        return {"train_loss": self.loss / seen, "train_top1": self.correct / seen}


@dataclass
class Stepper:
    """Makes optimizer steps.

    A step takes ``accumulate`` batches, fewer at the end of an epoch. Their losses are weighted by their
    numbers of images, so the gradient is that of one large batch. Dropout and stochastic depth depend only on
    ``seed`` and the number of the step.

    Attributes:
        optimizer: each group stores its unscheduled learning rate as ``base_lr``.
        name: returns the name of an image, for messages.
        suffix: the part of ``model`` that batches of features go through; None: batches hold images.
        compiled: the compiled form of the part that batches go through.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    criterion: nn.Module
    schedule: Rates
    compute: Compute
    scaler: torch.amp.GradScaler
    seed: int
    name: Callable[[int], str]
    accumulate: int = 1
    grad_clip_norm: float | None = None
    ema: AveragedModel | None = None
    start_penalty: StartPenalty | None = None
    suffix: nn.Module | None = None
    compiled: Compiled | None = None

    @property
    def forward(self) -> nn.Module:
        """The module that batches go through."""
        return self.model if self.suffix is None else self.suffix

    def epoch(
        self, batches: Iterable[Batch], totals: Totals, phase_step: int, global_step: int
    ) -> Iterator[int]:
        """Train on ``batches``, add to ``totals``, and yield the number of steps made so far.

        The model must be in the modes that it trains in. ``phase_step`` counts from the start of the phase
        and sets the learning rate; ``global_step`` counts from the start of the run and sets the randomness.

        Raises:
            NonFiniteLossError: a loss or gradient is not finite; the weights are not updated with it.
        """
        source = iter(batches)
        made = 0
        while group := list(islice(source, self.accumulate)):
            self.step(group, totals, phase_step + made, global_step + made)
            made += 1
            yield made

    def step(self, group: list[Batch], totals: Totals, phase_step: int, global_step: int) -> None:
        """Make one optimizer step on the batches of ``group``.

        Raises:
            NonFiniteLossError: a loss or gradient is not finite; the weights are not updated with it.
            NoMemoryError: the step does not fit. Smaller steps were tried, so the weights are no longer
            valid.
        """
        factor = self.schedule.factor(phase_step)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = param_group["base_lr"] * factor
        torch.manual_seed(key(self.seed, "step", global_step))
        images = sum(len(batch.indices) for batch in group)
        totals.skipped += sum(len(batch.bad) for batch in group)
        if not images:
            return  # no image could be read; the step still counts, so that the schedule stays as planned
        try:
            self._update(group, totals, global_step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        else:
            return
        # Outside the handler: the traceback of the error references the tensors of the step.
        raise self._too_large(group, reason, global_step)

    def _update(self, group: list[Batch], totals: Totals, global_step: int) -> None:
        images = sum(len(batch.indices) for batch in group)
        self.optimizer.zero_grad(set_to_none=True)
        for batch in group:
            self.backward(batch, len(batch.indices) / images, totals, global_step)
        self._prepare_gradients(group, global_step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def backward(self, batch: Batch, share: float, totals: Totals, global_step: int) -> None:
        """Add the gradient of a batch, weighted by ``share`` (0 to 1), and its results to ``totals``."""
        if not batch.indices:
            return
        moved = batch.to(self.compute.device, non_blocking=True)
        forward = self.compiled or self.forward
        with self.compute.autocast():
            loss, logits = loss_and_logits(self.criterion, forward(moved.images), moved.targets)
        value = loss.item()
        if not math.isfinite(value):
            raise self._spoiled(f"the loss is {value}", [batch], global_step)
        self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        totals.images += len(batch.indices)
        totals.loss += value * len(batch.indices)
        totals.correct += int((logits.detach().argmax(1) == moved.labels).sum())

    def _prepare_gradients(self, group: list[Batch], global_step: int) -> None:
        """Check the gradients, clip them, and add the penalty of L2-SP.

        A finite loss can have a gradient that is not finite, and one such step would destroy every weight.
        """
        if self.scaler.is_enabled():
            # The scaler checks for overflows itself: in fp16 they are expected, and skipped.
            if self.grad_clip_norm is None and self.start_penalty is None:
                return
            self.scaler.unscale_(self.optimizer)
        trained = [p for g in self.optimizer.param_groups for p in g["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if not self.scaler.is_enabled() and not bool(norm.isfinite()):
            raise self._spoiled("the gradient is not finite", group, global_step)
        if self.grad_clip_norm is not None:
            nn.utils.clip_grads_with_norm_(trained, self.grad_clip_norm, norm)
        # On an overflow the scaler skips the step, and the penalty must be skipped too.
        if self.start_penalty is not None and bool(norm.isfinite()):
            self.start_penalty.pull(self.optimizer)

    def _too_large(self, group: list[Batch], reason: str, global_step: int) -> NoMemoryError:
        """The error for a step that does not fit, with a batch size that fits, found by trying."""
        largest = max(group, key=lambda batch: len(batch.indices))
        count = len(largest.indices)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = 0.0  # these steps only test the size
        fits = largest_that_fits(
            count, lambda size: self._update([largest.first(size)], Totals(), global_step)
        )
        if fits is None:
            advice = (
                "Not even 2 images fit: use a smaller data.image_size or backbone, or freeze more layers."
            )
        else:
            times = -(-count // fits) * self.accumulate
            advice = (
                f"Batches of {fits} fit: set train.batch_size: {fits}, and train.accumulate: {times} for "
                "steps of as many images."
            )
        return NoMemoryError(
            f"out of memory at step {global_step + 1}, in a batch of {count} images ({reason}). {advice} "
            "The checkpoints are intact: once memory is free, continue with --resume."
        )

    def _spoiled(self, what: str, group: list[Batch], global_step: int) -> NonFiniteLossError:
        indices = [index for batch in group for index in batch.indices]
        names = ", ".join(self.name(index) for index in indices[:NAMED_IMAGES])
        more = f" and {len(indices) - NAMED_IMAGES} more" if len(indices) > NAMED_IMAGES else ""
        with self.compute.autocast():
            places = (first_non_finite(self.forward, b.images.to(self.compute.device)) for b in group)
            place = next((place for place in places if place is not None), None)
        where = (
            f"The first output that is not finite is that of {place}" if place else "Every layer is finite"
        )
        return NonFiniteLossError(
            f"{what} at step {global_step + 1}; the weights were not updated with it. {where}. The images "
            f"of the batch: {names}{more}. Try a lower lr, grad_clip_norm: 1.0 or precision: fp32. The "
            "checkpoints are intact."
        )
